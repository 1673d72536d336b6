"""The page: a race of decodings that one can watch, stop, replay and read.

Modules:
    page      the page from top to bottom, and how it is launched
    context   what its parts share: models, limits, and what the visitor has chosen
    folds     a folder for each part: its module, its words and its scripts
    words     what several parts say: the titles of lanes and articles
    engine    the models, loaded once, and the device that all jobs take turns on
    jobs      jobs on the device; first of all a race
    worker    a job in a thread, its lines collected for the browser
    rows      rounds as NDJSON rows: all that the browser gets to know
    answers   typed answers to programs
    articles  the sample articles, and the check of pasted ones
    upload    a file that a visitor opens
    limits    what one visitor may ask for, read from the Spacefile
    head      what a shared link to it shows
    loading   what it says while the models are loaded, or could not be
"""
