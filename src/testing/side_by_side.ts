/** Expected and actual lines side by side. */

/** Characters of a column; longer lines continue in the next one. */
const COLUMN = 58;
/** Lines whose best alignment is computed; more are compared by their places. */
const ALIGN_MAX = 200;

/** A pair of the picture: indexes into both lists; -1: nothing on that side. */
type Pair = readonly [expected: number, actual: number];

/** The pairs with the most equal lines, in order. */
function aligned(n: number, m: number, equal: (i: number, j: number) => boolean): Pair[] {
  if (n > ALIGN_MAX || m > ALIGN_MAX)
    return Array.from({ length: Math.max(n, m) }, (_, i) => [i < n ? i : -1, i < m ? i : -1]);
  // best[i][j]: equal lines in what follows i and j.
  const best = Array.from({ length: n + 1 }, () => Array.from({ length: m + 1 }, () => 0));
  for (let i = n - 1; i >= 0; i--)
    for (let j = m - 1; j >= 0; j--)
      best[i]![j] = equal(i, j)
        ? best[i + 1]![j + 1]! + 1
        : Math.max(best[i + 1]![j]!, best[i]![j + 1]!);
  const pairs: Pair[] = [];
  let [i, j] = [0, 0];
  while (i < n && j < m) {
    if (equal(i, j)) pairs.push([i++, j++]);
    // Two lines that have no partner stand beside each other.
    else if (best[i + 1]![j + 1] === best[i]![j]) pairs.push([i++, j++]);
    else if (best[i + 1]![j]! >= best[i]![j + 1]!) pairs.push([i++, -1]);
    else pairs.push([-1, j++]);
  }
  while (i < n) pairs.push([i++, -1]);
  while (j < m) pairs.push([-1, j++]);
  return pairs;
}

/** Splits a line at spaces. */
function wrapped(text: string): string[] {
  const lines: string[] = [];
  let rest = text;
  while (rest.length > COLUMN) {
    const space = rest.lastIndexOf(' ', COLUMN);
    const at = space > COLUMN / 2 ? space : COLUMN;
    lines.push(rest.slice(0, at));
    rest = `  ${rest.slice(at).trimStart()}`;
  }
  return [...lines, rest];
}

/** The picture. Lines that are not equal have a `!` in front. */
export function sideBySide(
  expected: readonly string[],
  actual: readonly string[],
  equal: (i: number, j: number) => boolean,
): string {
  const rows = [`  ${'expected'.padEnd(COLUMN)} | actual`];
  for (const [i, j] of aligned(expected.length, actual.length, equal)) {
    const left = i < 0 ? ['(nothing)'] : wrapped(expected[i]!);
    const right = j < 0 ? ['(nothing)'] : wrapped(actual[j]!);
    const mark = i >= 0 && j >= 0 && equal(i, j) ? ' ' : '!';
    for (let k = 0; k < Math.max(left.length, right.length); k++)
      rows.push(`${mark} ${(left[k] ?? '').padEnd(COLUMN)} | ${right[k] ?? ''}`.trimEnd());
  }
  return rows.join('\n');
}
