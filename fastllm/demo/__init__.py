"""The page: a race of decodings that one can watch, stop, replay and read.

Modules:
    limits    what one visitor may ask for, read from the Spacefile
    texts     every sentence of the interface
    articles  the sample articles, and what is refused of pasted ones
    engine    the models, loaded once, and the device that all work takes turns on
    work      what the device can be asked for; first of all a race
    wire      rounds as NDJSON rows: all that the browser gets to know
    keep      the code that a visitor takes home
    after     a race that has ended, as the numbers of its plots
    trained   how the drafters were trained, from their cards
    worker    a race in a thread, its lines collected for the browser
    stage     what the parts of the page share
    upload    a file that a visitor opens
    compare   the lanes over several articles
    answers   typed answers to programs
    game      the visitor as a drafter: the rules of the game, and its turns
    guess     the fold in which it is played
    learn     a drafter that learns in view, then races
    build     the page itself
    head      what a shared link to it shows
    loading   what the page says while the models are loaded, or could not be
    measure   what the page promises, measured in a real browser
    record    the race that the first screen shows
"""
