"""How the reviewed lists are written: names with blanks between them, so that a difference stays small."""


def words(text: str) -> list[str]:
    """The names in a text."""
    return text.split()
