export { type BranchOptions, type ReverseOptions, type RoleOptions, startBranch, startReverse } from './roles.ts';
export type { Service } from './service.ts';
