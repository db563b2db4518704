"""A page of HTML, taken apart."""

from html.parser import HTMLParser


class Elements(HTMLParser):
    """The elements of a page: `tags`, [(tag, attributes)], and `texts`, {id, or else tag: text within}."""

    def __init__(self, text):
        super().__init__(convert_charrefs=False)
        self.tags, self.texts, self._inside = [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self._inside.append(attributes.get("id", tag))

    def handle_endtag(self, tag):
        self._inside.pop()

    def handle_data(self, data):
        if self._inside:
            key = self._inside[-1]
            self.texts[key] = self.texts.get(key, "") + data
