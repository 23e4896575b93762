export { Discovery, type DiscoveryOptions } from './discovery.ts';
export { isNeighbour, isOwnAddress, type LanInterface, lanInterfaces } from './interfaces.ts';
