"""You be the drafter: the rules of the game, its turns, and the fold in which it is played."""
