export { Discovery, type DiscoveryOptions } from './discovery.ts';
export { isNeighbour, type LanInterface, lanInterfaces } from './interfaces.ts';
