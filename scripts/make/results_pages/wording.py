"""The words of the tables: what the names of the stored tables stand for."""

SPACES = {"mobilenet_v3": "MobileNetV3", "resnet50d": "ResNet50D", "proxyless": "ProxylessNAS"}
LABELS = {"note10": "Note10", "epyc_1thread": "`epyc_1thread`", "macs": "MACs"}
CASES = {
    "mobilenet_v3-note10": "MobileNetV3, Note10",
    "mobilenet_v3-macs": "MobileNetV3, MACs",
    "resnet50d-macs": "ResNet50D, MACs",
}
SEARCHES = {
    ("independent", "paper"): "`independent` (`paper.yaml`)",
    ("top_down", "paper"): "`top_down` (`paper.yaml`)",
    ("nsga2", ""): "NSGA-II of pymoo (`topdown_ray.algorithms.baselines.nsga2`)",
    ("joint", "joint_10k"): "`joint` (`joint_10k.yaml`)",
    ("joint", "joint_40k"): "`joint` (`joint_40k.yaml`)",
    ("joint", "joint_200k"): "`joint` (`joint_200k.yaml`)",
    ("independent", "joint_baselines"): "`independent`",
    ("top_down", "joint_baselines"): "`top_down`",
    ("independent", "independent_distinct"): "`independent`, distinct parents (`independent_distinct.yaml`)",
    ("top_down", "top_down_distinct"): "`top_down`, distinct parents (`top_down_distinct.yaml`)",
}
ABLATION = {
    "joint_40k": "none (`joint_40k.yaml`)",
    "no_distinct": "`distinct_parents: false`: a child is scored even if it was drawn before",
    "no_gradients": "`gradient_share: 0`",
    "one_change": "`changes: 1`",
    "no_sharing": "`share_archive: false`: each child is offered to its own target only",
    "no_neighbours": "`neighbour_rate: 0`: parents come from the child's own target only",
    "hot": "`temperature: 0.0009`, three times the default",
    "cold": "`temperature: 0.0001`, a third of the default",
}
CONTESTANTS = {
    "floor": "`floor`: the predictor alone",
    "ofa": "OFA's own `EvolutionFinder`, one search for each target",
    "notebook": "`notebook`: the scalar top-down search",
    "ours, batch 1": "`top_down`, a single search",
    "ours, batch 8": "`top_down`, 8 searches in lock step",
    "ours, batch 32": "`top_down`, 32 searches in lock step",
    "ours, batch 128": "`top_down`, 128 searches in lock step",
    "joint, batch 32": "`joint`, as many evaluations as `top_down`, 32 in lock step",
    "joint, 14 generations": "`joint`, 14 generations, 32 in lock step",
    "joint, 66 generations": "`joint`, 66 generations, 32 in lock step",
    "joint, 1500 generations": "`joint`, 1,500 generations, 32 in lock step",
    "nsga2": "NSGA-II of pymoo, one run for all targets",
    "top_down": "`top_down`, 32 searches in lock step",
    "top_down, a lone search": "`top_down`, a single search",
    "joint, 66 generations, a lone search": "`joint`, 66 generations, a single search",
}
