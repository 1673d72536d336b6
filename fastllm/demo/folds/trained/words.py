"""What the cards of the drafters say."""

TITLE = "How these were trained"
FACTS = {
    "method.name": "method",
    "method.loss": "loss",
    "texts": "texts it learned from",
    "articles": "articles",
    "recipe.updates": "updates",
    "recipe.batch": "articles per update",
    "recipe.learning_rate": "learning rate",
    "start": "first weights",
    "recipe.seed": "seed",
    "method.order": "order",
    "method.smoothing": "smoothing",
    "parameters": "parameters",
    "entries": "entries of its table",
    "bytes": "bytes on disk",
    "seconds": "seconds of training",
    "teacher_tokens.written": "tokens the target wrote for it",
    "teacher_tokens.scored": "tokens the target scored for it",
    "validation.alpha": "alpha on held-out articles (temperature 1)",
    "validation.tau": "tokens per call on held-out articles (greedy)",
}
"""Where a fact stands in the card of a drafter -> what the page calls it."""

VALUES = {
    "supervised": "cross-entropy on the data set's summaries (supervised)",
    "seq_kd": "cross-entropy on the target's texts (SeqKD)",
    "supervised_kd": "the target's probabilities on the data set's summaries (supervised KD)",
    "imit_kd": "the target's probabilities on the data set's and its own texts (ImitKD)",
    "f_distill": "the target's probabilities on the target's and its own texts (f-distill)",
    "on_policy_gkd": "the target's probabilities on its own texts (on-policy GKD)",
    "mixed_gkd": "the target's probabilities on the target's and its own texts (mixed GKD)",
    "opd": "the target's probabilities on its texts and on refused drafts (Draft-OPD)",
    "counting": "counting",
    "ce": "cross-entropy",
    "fkl": "forward KL",
    "rkl": "reverse KL",
    "jsd": "Jensen-Shannon",
    "tvd": "total variation",
    "tvdpp": "TVD++",
    "lk_nla": "negative log of the acceptance",
    "lk_hybrid": "forward KL, then the acceptance",
}
"""How a card names a method or a loss -> what the page calls it."""

TARGET_FACTS = {
    "name": "name",
    "architecture": "architecture",
    "parameters": "parameters",
    "bytes": "bytes on disk",
    "data": "data",
    "status": "status",
    "limits": "limits",
}
"""The same for the card of the target."""

BROWSER = {
    "intro": (
        "The two of a pair have the same form, first weights, articles and number of updates. What "
        "differs is what they learn from: the data set's own summaries (before), or the target's "
        "texts and probabilities (after)."
    ),
    "tau": "Tokens per call of the target, on held-out articles while it learned",
    "alpha": "Alpha at temperature 1, the chance that a guess is accepted, on the same articles",
    "updates": "updates",
    "recipe": "Recipe and numbers",
    "target": "The target that all of them guess for",
}
"""What `folds/trained/trained.js` says."""
