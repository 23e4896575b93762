/** An IPv4 address as such where a listener for both families has it in the clothes of IPv6; the zone of a link-local one stays. */
export function unmappedAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '');
}
