/** An IPv4 address as such where a listener for both families has it in the clothes of IPv6. */
export function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '');
}
