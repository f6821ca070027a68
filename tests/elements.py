"""What a page of HTML is made of."""

from collections import Counter
from html.parser import HTMLParser


class Elements(HTMLParser):
    """What a page is made of: its elements with their attributes' names, and where links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.text = ""
        self.feed(page)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attrs):
        self.found[tag] += 1
        self.found.update(f"on… in <{tag}>" for name, _ in attrs if name.startswith("on"))
        self.found.update(f"{name} in <{tag}>" for name, _ in attrs if name in ("src", "srcdoc"))
        led = [value or "" for name, value in attrs if name in ("href", "xlink:href", "action")]
        self.found.update("link outside" for value in led if not value.startswith("#"))
