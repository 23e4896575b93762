/** The commands and files that a document shows, in order. */

export interface ShownFile {
  readonly kind: 'file';
  readonly heading: string;
  readonly name: string;
  readonly text: string;
}

export interface ShownCommand {
  readonly kind: 'command';
  readonly heading: string;
  readonly line: number;
  /** Without its comment. */
  readonly text: string;
}

/** Blocks of `sh`, a command a line, and blocks that stand under the name of a file in backticks and a colon. */
export function shownIn(markdown: string): (ShownFile | ShownCommand)[] {
  const shown: (ShownFile | ShownCommand)[] = [];
  let heading = '';
  const lines = markdown.split('\n');
  for (let at = 0; at < lines.length; at += 1) {
    const line = lines[at] as string;
    if (/^#{1,6} /.test(line)) heading = line;
    const language = /^```(\w+)$/.exec(line)?.[1];
    if (language === undefined) continue;
    const end = lines.indexOf('```', at + 1);
    const body = lines.slice(at + 1, end);
    const name = /^`([\w.-]+)`:$/.exec(lines[at - 2] ?? '')?.[1];
    if (name !== undefined) shown.push({ kind: 'file', heading, name, text: `${body.join('\n')}\n` });
    else if (language === 'sh')
      body.forEach((text, index) => {
        const isContinued = body[index - 1]?.endsWith('\\') === true;
        const command = text
          .replace(/\s+#.*$/, '')
          .replace(/\\$/, '')
          .trim();
        const last = shown.at(-1);
        if (isContinued && last?.kind === 'command') shown.splice(-1, 1, { ...last, text: `${last.text} ${command}` });
        else if (command !== '') shown.push({ kind: 'command', heading, line: at + 2 + index, text: command });
      });
    at = end;
  }
  return shown;
}
