"""What the fold of things to take home says."""

BROWSER = {
    "keep": "Take home",
    "take_replay": "Replay as one HTML file",
    "take_trace": "Traces as JSON lines",
    "take_note": "Made in this browser; nothing is sent. The file plays without a network.",
    "article": "The article",
    "saved": "Saved on {} from FastLLM.",
    "race_again": "Race it again",
    "link": "Link to this moment",
    "copy_link": "Copy link to this moment",
    "copy_code": "Copy",
    "code": "The code that runs this again",
    "copied": "Copied.",
    "copy_by_hand": "Selected: press Ctrl+C or Cmd+C.",
    "link_own": "The link holds your article, behind its #: no browser sends that part.",
    "link_waiting": "This link shows another race than the one below. Press the button to run it.",
    "link_without": "This link shows an article of one's own. Press the button to race it.",
}
"""What `keep.js` says, and the race of links and copies."""
