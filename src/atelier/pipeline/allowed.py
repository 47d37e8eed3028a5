"""What a page may hold: an allow-list of elements, attributes and addresses, checked on the tree that a browser builds.

A page is complete in itself: it runs nothing but the site's own script, and fetches nothing but pictures that lie
beside it. Its policy says the same to the browser, so that whatever this check might miss does nothing either.
"""

import re
from base64 import b64encode
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element

import html5lib

HTML, MATHML = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/1998/Math/MathML}"
PLAIN = (
    "html head title body header nav main footer article section details summary figure figcaption div span p h1 h2 "
    "h3 h4 h5 h6 table caption colgroup col thead tbody tfoot tr th td ul ol li dl dt dd pre code kbd samp var strong "
    "b em i u s del ins sub sup small mark abbr cite q blockquote br hr wbr"
)
FORMULAS = (
    "math mrow mi mn mo ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mmultiscripts "
    "mprescripts mtable mtr mtd mpadded mphantom mstyle merror"
)
GLOBAL = frozenset({"class", "id", "title", "lang", "dir", "role", "tabindex"})
FORMULA_ATTRIBUTES = (
    "accent accentunder alttext columnalign columnlines columnspan depth dir display displaystyle fence form height "
    "largeop linethickness lspace mathvariant maxsize minsize movablelimits rowlines rowspacing rowspan rspace "
    "scriptlevel separator stretchy symmetric voffset width"
)
CELL = frozenset({"scope", "rowspan", "colspan", "align", "valign", "halign"})
ATTRIBUTES = {  # of one element, beside the global ones
    "a": {"href"},
    "img": {"src", "alt", "width", "height", "loading"},
    "meta": {"charset", "name", "content", "http-equiv"},
    "details": {"open"},
    "figure": {"data-noun", "data-side", "data-step"},  # of a picture browser's tiles, for the site's script
    "ol": {"start"},
    "th": CELL,
    "td": CELL,
    "col": {"span"},
    "colgroup": {"span"},
}
ELEMENTS = frozenset({*(HTML + name for name in PLAIN.split()), HTML + "a", HTML + "img"})
FORMULA_ELEMENTS = frozenset(MATHML + name for name in FORMULAS.split())
SCHEMES = ("http", "https", "mailto")  # of links, which a reader follows
INLINE_PICTURES = re.compile(r"data:image/(png|jpeg|webp|svg\+xml);base64,[A-Za-z0-9+/=]*")
IGNORED = re.compile(r"[\t\n\r]|^[\x00-\x20]+|[\x00-\x20]+$")  # of an address, by every browser
SHOWN = 80  # letters of an attribute in a message


class Addresses(NamedTuple):
    """Relative addresses, as the page writes them: of links, and of pictures."""

    links: list[str]
    pictures: list[str]


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy of a page: no style and no script but these, pictures beside it, no request."""
    sheet, code = (b64encode(sha256(text.encode()).digest()).decode() for text in (style, script))
    return (
        f"default-src 'none'; img-src 'self' data:; style-src 'sha256-{sheet}'; script-src 'sha256-{code}'; "
        "base-uri 'none'; form-action 'none'"
    )


def addresses(text: str, style: str, script: str) -> Addresses:
    """Check a page and return its relative addresses; ``style`` and ``script`` are all that it may hold of either.

    Raises ValueError, with the element, for whatever is not on the list.
    """
    addresses = Addresses([], [])
    document = html5lib.parse(text, treebuilder="etree", namespaceHTMLElements=True)
    for element in document.iter():
        if isinstance(element.tag, str):  # a comment's is a function
            _check(element, style, script, addresses)
    return addresses


def _check(element: Element, style: str, script: str, addresses: Addresses) -> None:
    name = element.tag.rpartition("}")[2]
    if element.tag in (HTML + "style", HTML + "script"):
        if (element.text or "") != (style if name == "style" else script) or len(element) or element.attrib:
            raise ValueError(f"<{name}>: a page must load nothing and has no style sheet and no script but its own")
    elif element.tag == HTML + "meta":
        _check_meta(element, style, script)
    elif element.tag not in ELEMENTS and element.tag not in FORMULA_ELEMENTS:
        raise ValueError(f"<{name[:SHOWN]}>: a page must run and load nothing, and this element is not on the list")
    allowed = FORMULA_ATTRIBUTES.split() if element.tag in FORMULA_ELEMENTS else ATTRIBUTES.get(name, frozenset())
    for key, value in element.attrib.items():
        shown = f'<{name} {key[:SHOWN]}="{value[:SHOWN]}">'
        if key not in allowed and key not in GLOBAL and not key.startswith("aria-"):
            raise ValueError(f"{shown}: a page must run and load nothing, and this attribute is not on the list")
        if (name, key) == ("img", "src"):
            _add_picture(value, shown, addresses)
        elif (name, key) == ("a", "href"):
            _add_link(value, shown, addresses)


def _check_meta(element: Element, style: str, script: str) -> None:
    """The three that every page has: encoding, width, policy."""
    expected = (
        {"charset": "utf-8"},
        {"name": "viewport", "content": "width=device-width, initial-scale=1"},
        {"http-equiv": "Content-Security-Policy", "content": policy(style, script)},
    )
    if element.attrib not in expected:
        raise ValueError(f"<meta {' '.join(element.attrib)[:SHOWN]}>: a page must run and load nothing")


def _add_picture(address: str, shown: str, addresses: Addresses) -> None:
    if INLINE_PICTURES.fullmatch(address):
        return
    if not _is_below(address):
        raise ValueError(f"{shown}: a page must load nothing but pictures beside it")
    addresses.pictures.append(address)


def _add_link(address: str, shown: str, addresses: Addresses) -> None:
    try:
        parts = urlsplit(IGNORED.sub("", address))
    except ValueError:
        raise ValueError(f"{shown}: a page must link to its site's files or to the web") from None
    if parts.scheme in SCHEMES or (address.startswith("#") and not IGNORED.search(address)):
        return
    path = unquote(parts.path)
    if parts.scheme or parts.netloc or path.startswith("/") or "\\" in path or IGNORED.search(address):
        raise ValueError(f"{shown}: a page must link to its site's files or to the web")
    addresses.links.append(parts.path)


def _is_below(address: str) -> bool:
    """Whether a relative address stays in its page's folder."""
    path = unquote(address)
    plain = not IGNORED.search(address) and not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", address)
    return plain and not (path.startswith("/") or "\\" in path or ".." in path.split("/"))
