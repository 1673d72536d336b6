"""What is raced: the choice of the article, of the lanes, and the buttons."""
