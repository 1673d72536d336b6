"""How the drafters were trained, from their cards."""
