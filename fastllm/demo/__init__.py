"""The page: a race of decodings that one can watch, stop, replay and read.

Modules:
    limits    what one visitor may ask for, read from the Spacefile
    texts     every sentence of the interface
    articles  the sample articles, and what is refused of pasted ones
    engine    the models, loaded once, and the device that all work takes turns on
    jobs      what the device can be asked for; first of all a race
    rows      rounds as NDJSON rows: all that the browser gets to know
    worker    a race in a thread, its lines collected for the browser
    stage     what the parts of the page share
    upload    a file that a visitor opens
    answers   typed answers to programs
    folds     a folder for each fold of the page: its module and its script
    page      the page itself
    head      what a shared link to it shows
    loading   what the page says while the models are loaded, or could not be
"""
