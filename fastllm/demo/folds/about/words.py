"""What the tab about the page says."""

GLOSSARY_TITLE = "What the words mean"
GLOSSARY = (
    (
        "Target",
        "The large model. It alone decides the text; without a drafter it writes one token per "
        "call.",
    ),
    (
        "Drafter",
        "The small model. It guesses the next tokens, cheaply; nothing that it guesses gets into "
        "the text unless the target accepts it.",
    ),
    (
        "Token",
        "A word, or a piece of one: what a model reads and writes. A word in the text above "
        "may be several tokens.",
    ),
    (
        "Call",
        "One pass of the target over the text. It takes about as long for one token as for a "
        "handful: so a call that checks five guesses and accepts four is four calls saved. That "
        "is why fewer calls are faster.",
    ),
    (
        "Accepted, refused, fix, extra",
        "A guess that the target would have written stands. The first that it would not falls, "
        "and the target's own token, the fix, takes its place. If every guess stands, the same "
        "call gives one token more, the extra.",
    ),
    (
        "Distillation",
        "Training the drafter on what the target writes. Before: trained on the data set alone. "
        "After: aligned with the target.",
    ),
    (
        "Alpha, gamma, c",
        "Alpha is the chance that a guess is accepted, gamma the most guesses per call, c the "
        "time of one guess over the time of one call.",
    ),
)
MODELS_TITLE = "The models here"
MODELS_HEADER = ("", "what it is", "parameters", "on disk")
TARGET = "target"
PAIR = "{} (before and after distillation)"
RUNS = "Weights are held in {}. {}"
MEGABYTES = "{:.1f} MB"
TAKE_TITLE = "Use it elsewhere"
INSTALL = "Install, and race from a program or a shell"
INSTALL_CODE = """pip install .                      # in a clone of this repository
python -m fastllm run --help       # a summary, and what the drafter did
python app.py                      # this page, on your machine"""
API = "Ask this page from a program"
API_NOTE = (
    "Every setting has a name: gamma, temperature, top_p, seed, length, rule, lenience. /result "
    "is one race, /compare several articles; “Use via API” at the foot lists all parameters."
)
API_CODE = """from gradio_client import Client

client = Client("{address}")
race = client.predict(
    article=open("article.txt").read(),
    lanes=["alone", "lookup", "lstm-after"],
    gamma=5, temperature=0, length=96, seed=0,
    api_name="/result",
)
for lane in race["lanes"]:
    print(lane["title"], lane["calls"], "calls,", lane["speed_up"], "times as fast")"""
DEPLOY = "Deploy it as a Space of your own, or embed it"
DEPLOY_CODE = """python -m fastllm deploy --space OWNER/NAME --dry-run   # shows what would be sent
<iframe src="{address}" width="100%" height="900"></iframe>"""
LINKS = (
    ("The code of this page", "/tree/main"),
    ("The models and their cards", "/tree/main/assets/checkpoints"),
    ("Duplicate this Space", "?duplicate=true"),
)
"""A title, and where it leads to behind the address of the Space."""

REFERENCES_TITLE = "References"
REFERENCES = (
    ("Leviathan et al. 2023", "https://arxiv.org/abs/2211.17192", "speculative decoding"),
    ("Chen et al. 2023", "https://arxiv.org/abs/2302.01318", "the same, found independently"),
    ("Zhou et al. 2024, DistillSpec", "https://arxiv.org/abs/2310.08461", "aligned drafters"),
    ("Sun et al. 2024", "https://arxiv.org/abs/2403.10444", "the block rule"),
    ("Kim and Rush 2016", "https://arxiv.org/abs/1606.07947", "distillation of sequences"),
    ("Nallapati et al. 2016", "https://arxiv.org/abs/1602.06023", "news and its summaries"),
)
"""Who, where, what for."""
