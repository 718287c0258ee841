"""What several test modules share: inputs, oracles, fakes and servers."""
