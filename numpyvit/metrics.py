"""How well logits fit labels."""


def accuracy(logits, targets):
    """The share of rows whose largest logit is the label's (or the soft target's largest class)."""
    logits = sum(logits) if isinstance(logits, tuple) else logits
    labels = targets.argmax(-1) if targets.ndim == 2 else targets
    return (logits.argmax(-1) == labels).mean()
