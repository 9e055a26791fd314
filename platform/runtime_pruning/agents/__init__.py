"""How decisions are learned: a decision network, RLlib's DQN around it, and the way out of RLlib.

`decision_network` and `policy` need torch alone; everything else needs Ray. So nothing is
re-exported here: import from the module that has it.
"""
