/** Parsers of numbers in options. Each throws an Error that names the text and the valid range. */

/** A decimal number in [min, max], without sign, point or exponent. */
export function wholeNumber(text: string, min: number, max: number): number {
  const n = Number(text);
  if (!/^\d+$/.test(text) || n < min || n > max)
    throw new Error(`${text}: a whole number from ${min} to ${max} is needed`);
  return n;
}

/** A decimal number in [min, max] that may have a fraction. */
export function decimalNumber(text: string, min: number, max: number): number {
  const n = Number(text);
  if (!/^(\d+\.?\d*|\.\d+)$/.test(text) || n < min || n > max)
    throw new Error(`${text}: a number from ${min} to ${max} is needed`);
  return n;
}
