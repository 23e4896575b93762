export { type BranchOptions, type ReverseOptions, type RoleOptions, startBranch, startReverse } from './roles/roles.ts';
export type { Service } from './roles/service.ts';
