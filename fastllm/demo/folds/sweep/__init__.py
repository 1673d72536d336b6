"""One drafter on one article, over draft lengths, temperatures, seeds and rules."""
