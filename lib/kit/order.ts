import { PeerDistError } from '../errors.ts';
import type { Plugin } from './plugin.ts';

/**
 * Puts plug-ins in order, nearest to the client first: as given, except where `before` and `after` say otherwise.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_PLUGIN` for a name used twice, a missing requirement or a circle
 */
export function orderPlugins(plugins: readonly Plugin[]): readonly Plugin[] {
  const byName = new Map(plugins.map((plugin) => [plugin.name, plugin]));
  if (byName.size !== plugins.length) throw new PeerDistError('ERR_PEERDIST_PLUGIN', 'two plug-ins have the same name');
  for (const plugin of plugins) {
    const missing = plugin.requires?.find((name) => !byName.has(name));
    if (missing !== undefined) {
      throw new PeerDistError('ERR_PEERDIST_PLUGIN', `plug-in ${plugin.name} requires ${missing}`);
    }
  }
  const ordered: Plugin[] = [];
  const state = new Map<Plugin, 'visiting' | 'done'>();
  const visit = (plugin: Plugin): void => {
    if (state.get(plugin) === 'done') return;
    if (state.get(plugin) === 'visiting') {
      throw new PeerDistError('ERR_PEERDIST_PLUGIN', `plug-in ${plugin.name} is both before and after another`);
    }
    state.set(plugin, 'visiting');
    for (const outer of plugins) {
      if (plugin.after?.includes(outer.name) === true || outer.before?.includes(plugin.name) === true) visit(outer);
    }
    state.set(plugin, 'done');
    ordered.push(plugin);
  };
  for (const plugin of plugins) visit(plugin);
  return ordered;
}
