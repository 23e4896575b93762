/** What is not shown of a configuration, wherever it is repeated: in a listing, in an error, in a log. */

/** Keys whose value nobody is to see. */
const SECRET: ReadonlySet<string> = new Set(['secret', 'secret-utf16', 'secret-hex']);

export function isSecret(name: string): boolean {
  return SECRET.has(name);
}

/** Text with the pass words of the URLs in it left out, also where they are not encoded as they should be. */
export function withoutPasswords(text: string): string {
  return text.replace(/(\w:\/\/[^:@/\s]*:)[^\s"]*@/g, '$1***@');
}

/** Text that cannot do anything to a terminal, and stays on its line. */
export function printable(text: string): string {
  return text.replace(/[^\x20-\x7e\u00a0-\uffff]/g, '?');
}
