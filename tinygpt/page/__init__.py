"""A trained GPT as one HTML page that runs it in a browser.

page.html is the frame, page.css its look. tokenizer.js and model.js are the model in JavaScript. worker.js
uses them in a thread of its own, and page.js shows what comes back.
"""

from tinygpt.page.document import LARGEST, is_page, page_of
from tinygpt.page.weights import KINDS

__all__ = ["KINDS", "LARGEST", "is_page", "page_of"]
