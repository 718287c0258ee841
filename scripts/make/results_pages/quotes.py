QUOTES = {}
def values(t): return {}
