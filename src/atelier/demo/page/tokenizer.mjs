// CLIP's tokenizer, as transformers' CLIPTokenizer splits and joins: NFC, white space, lower case, CLIP's pattern,
// bytes as letters, byte-pair merges in their order.

const WHITE = /[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/gu; // what Unicode calls white space
const SPACE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const SUFFIXES = "'s|'t|'re|'ve|'m|'ll|'d";
const WORDS = new RegExp(
  `<\\|startoftext\\|>|<\\|endoftext\\|>|${SUFFIXES}|\\p{L}+|\\p{N}|[^${SPACE}\\p{L}\\p{N}]+`, "gu");
const PIECES = new RegExp(`${SUFFIXES}|\\p{L}+|\\p{N}+|[^${SPACE}\\p{L}\\p{N}]+`, "gu"); // of a word: GPT-2's pattern
const END = "</w>";

/** The letter that stands for each byte: printable ones for themselves, the others from U+0100 on. */
function letters() {
  const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/**
 * From the tables that the export writes (`tokens` by number, `merges` by rank, `special` numbers by text, `start`,
 * `end`, `pad`, `length`) to a function from a text to `length` numbers.
 */
export function tokenizer(tables) {
  const numbers = new Map(tables.tokens.map((token, number) => [token, number]));
  const ranks = new Map(tables.merges.map((pair, rank) => [pair.join(" "), rank]));
  const special = new Map(Object.entries(tables.special));
  const marks = new RegExp(`(${[...special.keys()].map((mark) => mark.replaceAll("|", "\\|")).join("|")})`, "u");
  const byteLetters = letters();
  const encoder = new TextEncoder();
  const known = new Map();

  function merged(piece) {
    const parts = Array.from(encoder.encode(piece), (byte) => byteLetters[byte]);
    parts[parts.length - 1] += END;
    for (;;) {
      let best = -1;
      let least = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < least) [best, least] = [i, rank];
      }
      if (best < 0) return parts.map((part) => numbers.get(part) ?? tables.unknown);
      parts.splice(best, 2, parts[best] + parts[best + 1]);
    }
  }

  function ofPiece(piece) {
    if (!known.has(piece)) known.set(piece, merged(piece));
    return known.get(piece);
  }

  function ofText(text) {
    // letter by letter: a final sigma is a sigma
    const plain = Array.from(text.normalize("NFC").replace(WHITE, " "), (letter) => letter.toLowerCase()).join("");
    return (plain.match(WORDS) ?? []).flatMap((word) => (word.match(PIECES) ?? []).flatMap(ofPiece));
  }

  return (text) => {
    const middle = text.split(marks).flatMap((part) => (special.has(part) ? [special.get(part)] : ofText(part)));
    const whole = [tables.start, ...middle.slice(0, tables.length - 2), tables.end];
    return [...whole, ...Array(tables.length - whole.length).fill(tables.pad)];
  };
}
