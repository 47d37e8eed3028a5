"""Convert LaTeX formulas to MathML that browsers render well without a library.

latex2mathml passes unknown commands through silently, which is refused here; and it targets MathML 3, of which browsers
implement MathML Core: features missing there (alphabets, spacing by context) are written out explicitly.
"""

import re
import unicodedata
from xml.etree.ElementTree import Element, fromstring, tostring

from latex2mathml.converter import convert

ARITY = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "msubsup": 3, "munder": 2, "mover": 2, "munderover": 3}
SCRIPTED = ("msub", "msup", "msubsup", "munder", "mover", "munderover")
CLOSING = (")", "]", "}", "⟩", "‖", "|", "!", "⌉", "⌋")
THIN = "0.167em"


def mathml(latex: str, display: str) -> str:
    """Convert a formula, with ``display`` "block" or "inline". Raises ValueError if any part does not convert."""
    shown = f"formula ${' '.join(latex.split())}$"
    bare = re.sub(r"\\[{}]", "", latex)
    if bare.count("{") != bare.count("}"):
        raise ValueError(f"{shown}: braces do not match")
    known = latex.replace("{aligned}", "{split}")
    known = re.sub(r"\\mathrm\{(\w+)\}", r"\\text{\1}", known)  # or a single upright letter would become italic
    try:
        tree = fromstring(re.sub(r' xmlns="[^"]*"', "", convert(known, display=display)))
    except Exception as error:  # latex2mathml's exceptions have no common base class
        raise ValueError(f"{shown}: {str(error) or type(error).__name__}") from None
    for element in tree.iter():
        content = element.text or ""
        if "\\" in content or (element.tag == "mo" and not content.strip() and not len(element)):
            raise ValueError(f"{shown}: {content or 'a command in it'} is not known to latex2mathml")
        if len(element) != ARITY.get(element.tag, len(element)):
            raise ValueError(f"{shown}: {element.tag} has {len(element)} of {ARITY[element.tag]} parts")
    for element in tree.iter():
        _set_alphabet(element)
    for element in tree.iter():
        _set_spacing(list(element))
    tree.set("alttext", " ".join(latex.split()))
    return tostring(tree, encoding="unicode", short_empty_elements=False)


def _set_alphabet(element: Element) -> None:
    """Unicode letters for ``mathvariant``, of which browsers support only "normal"; relations as operators."""
    content = element.text or ""
    if element.tag == "mi" and content == "~":  # \sim
        content = "∼"
    if variant := element.attrib.get("mathvariant"):
        content = "".join(_letter(character, variant) for character in content)
    elif element.tag == "mi" and re.fullmatch("[Α-Ω]", content):
        element.set("mathvariant", "normal")  # capital Greek letters are upright
    elif element.tag == "mi" and len(content) == 1 and unicodedata.category(content) in ("Sm", "Ps", "Pe", "Po"):
        element.tag = "mo"
    element.text = content


def _letter(character: str, variant: str) -> str:
    words = re.sub("LATIN |GREEK |LETTER ", "", unicodedata.name(character, ""))
    style = variant.replace("bold-", "bold ").upper()
    for name in (f"MATHEMATICAL {style} {words}", f"{style} {words}"):  # ℝ, ℒ ... have the shorter name
        try:
            return unicodedata.lookup(name)
        except KeyError:
            continue
    return character


def _set_spacing(row: list[Element]) -> None:
    """Apply TeX's spacing: a sign after an operator is unary; log, tr ... have a thin space beside letters."""
    cores = [_core(element) for element in row]
    for index, core in enumerate(cores):
        before, after = cores[index - 1] if index else None, cores[index + 1] if index + 1 < len(cores) else None
        if core.tag == "mo" and core.text in ("‖", "|", "/"):
            core.attrib = {"lspace": "0", "rspace": "0", "stretchy": "false"} | core.attrib  # \left and \right stretch
        elif core.tag == "mo" and core.text in ("−", "+", "±"):
            if before is not None and before.tag == "mo" and before.text not in CLOSING:
                core.set("form", "prefix")
        elif core.tag in ("mi", "mo") and re.fullmatch("[A-Za-z]{2,}.*", core.text or ""):
            off_left = before is not None and (before.tag != "mo" or before.text in ("∇", "∂"))
            off_right = after is not None and after.tag != "mo"
            core.tag = "mo"
            core.attrib |= {"lspace": THIN if off_left else "0", "rspace": THIN if off_right else "0"}


def _core(element: Element) -> Element:
    """The base of an element with scripts."""
    while element.tag in SCRIPTED and len(element):
        element = element[0]
    return element
