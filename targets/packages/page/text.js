// Words and numbers in messages, as run.py writes them.

/** What a user gave cannot be used; its message is one line. */
export class InputError extends Error {}

/** The artifact is not what it should be. */
export class ArtifactError extends Error {}

/** A text in quotes, with what is not printable as escapes. */
export function quoted(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escapes = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", [quote]: `\\${quote}` };
  const shown = Array.from(text, (letter) => {
    const code = letter.codePointAt(0);
    if (letter in escapes) return escapes[letter];
    return code < 32 || (code >= 127 && code < 161) ? `\\x${code.toString(16).padStart(2, "0")}` : letter;
  });
  return quote + shown.join("") + quote;
}

/** A number with six digits at most: 3600, 0.5, 2.592e+06. */
export function general(value) {
  const [digits, power] = value.toExponential(5).split("e").map(Number);
  if (value === 0 || (power >= -4 && power < 6)) return String(Number(value.toPrecision(6)));
  const sign = power < 0 ? "-" : "+";
  return `${digits}e${sign}${String(Math.abs(power)).padStart(2, "0")}`;
}
