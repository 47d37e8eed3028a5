"""LaTeX formulas as MathML that today's browsers set well by themselves.

latex2mathml passes on silently what it does not know, which is refused here; and it writes for MathML 3, of which
browsers keep a core: what that core leaves out (alphabets, spacing by context) is written out.
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
    """A formula as MathML, ``display`` being "block" or "inline". Raises ValueError when any of it does not convert."""
    shown = f"formula ${' '.join(latex.split())}$"
    bare = re.sub(r"\\[{}]", "", latex)
    if bare.count("{") != bare.count("}"):
        raise ValueError(f"{shown}: braces do not match")
    known = latex.replace("{aligned}", "{split}")
    known = re.sub(r"\\mathrm\{(\w+)\}", r"\\text{\1}", known)  # else a single upright letter ends up in italics
    try:
        tree = fromstring(re.sub(r' xmlns="[^"]*"', "", convert(known, display=display)))
    except Exception as error:  # latex2mathml's exceptions have no base of their own
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
    """Unicode's own letters for ``mathvariant``, of which browsers follow "normal" alone; relations as operators."""
    content = element.text or ""
    if element.tag == "mi" and content == "~":  # \sim
        content = "∼"
    if variant := element.attrib.get("mathvariant"):
        content = "".join(_letter(character, variant) for character in content)
    elif element.tag == "mi" and re.fullmatch("[Α-Ω]", content):
        element.set("mathvariant", "normal")  # capital Greek letters stand upright
    elif element.tag == "mi" and len(content) == 1 and unicodedata.category(content) in ("Sm", "Ps", "Pe", "Po"):
        element.tag = "mo"
    element.text = content


def _letter(character: str, variant: str) -> str:
    words = re.sub("LATIN |GREEK |LETTER ", "", unicodedata.name(character, ""))
    style = variant.replace("bold-", "bold ").upper()
    for name in (f"MATHEMATICAL {style} {words}", f"{style} {words}"):  # ℝ, ℒ ... have the short name
        try:
            return unicodedata.lookup(name)
        except KeyError:
            continue
    return character


def _set_spacing(row: list[Element]) -> None:
    """TeX's rules in a row: a sign after an operator is unary; log, tr ... stand a thin space off letters."""
    cores = [_core(element) for element in row]
    for place, core in enumerate(cores):
        before, after = cores[place - 1] if place else None, cores[place + 1] if place + 1 < len(cores) else None
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
    """What an element's scripts hang on."""
    while element.tag in SCRIPTED and len(element):
        element = element[0]
    return element
