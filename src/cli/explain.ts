/** `explain`: what a capture file contains, and the life of one of its packets. */

import { writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { CliError, fileError, newCommand, print, printJson, UsageError } from './command.ts';
import { captureItems, naming } from './capture_input.ts';
import { escapeData, escapeField } from './escape.ts';

interface Options {
  packet?: string;
  svg?: string;
  html?: string;
  json?: boolean;
}

const ID_MAX = 2 ** 32 - 1;

async function write(file: string, text: string): Promise<void> {
  try {
    await writeFile(file, text);
  } catch (e) {
    throw new CliError(`${file}: ${fileError(e)}`);
  }
}

/** Fields of files can contain line feeds, which would look like layout. */
function safe<T>(data: T): T {
  return escapeData(data, escapeField) as T;
}

async function packet(file: string, id: number, { svg, json }: Options): Promise<void> {
  const { lifeOf, lifeText, lifeJson } = await import('../explain/life.ts');
  const life = await naming(file, lifeOf(captureItems(file), id));
  if (life === null) throw new CliError(`${file}: no packet ${id}`);
  if (svg !== undefined) {
    const { lifeSvg } = await import('../explain/svg.ts');
    await write(svg, lifeSvg(life));
  }
  if (json === true) printJson(lifeJson(life));
  else if (svg === undefined) print(lifeText(safe(life)));
}

async function explain(file: string, options: Options): Promise<void> {
  const { html, json, svg } = options;
  if (options.packet !== undefined) {
    if (html !== undefined) throw new UsageError('--html shows all packets: omit --packet');
    const id = Number(options.packet);
    if (!/^\d{1,10}$/.test(options.packet) || id < 1 || id > ID_MAX)
      throw new UsageError(`--packet: ${options.packet}: a number from 1 to ${ID_MAX} is needed`);
    return packet(file, id, options);
  }
  if (svg !== undefined) throw new UsageError('--svg: it draws one packet: add --packet ID');
  if (html !== undefined) {
    const { capturePage } = await import('../explain/html.ts');
    await write(html, await naming(file, capturePage(captureItems(file), file)));
    return;
  }
  const { summarize, summaryText } = await import('../explain/summary.ts');
  const summary = await naming(file, summarize(captureItems(file)));
  if (json === true) printJson(summary);
  else print(summaryText(safe(summary)));
}

export const explainCommand: Command = newCommand('explain')
  .description('explain a capture file: a summary, the life of a packet, pictures')
  .argument('<file>', 'pcap or pcapng, also .gz; - for standard input')
  .option('--packet <id>', 'the life of one packet, through all points')
  .option('--svg <file>', 'with --packet: draw it')
  .option('--html <file>', 'write a page of the whole capture')
  .option('--json', 'print JSON')
  .action(explain);
