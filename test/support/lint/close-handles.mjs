/**
 * Lint rule: what the Peer Distribution API opens must be closed. A handle that is assigned to a variable is closed by `await using`, by
 * `close()` or `destroy()`, or handed to somebody else (returned, passed on, stored), whose duty it then is.
 */
const OPENERS = new Set(['openContent', 'openContentInformation', 'publish']);
const CLOSERS = new Set(['close', 'destroy']);

/** True for `await x.openContent(…)` and `await PeerDist.open(…)`. */
function opens(node) {
  if (node?.type !== 'AwaitExpression' || node.argument.type !== 'CallExpression') return false;
  const { callee } = node.argument;
  if (callee.type !== 'MemberExpression' || callee.property.type !== 'Identifier') return false;
  const { name } = callee.property;
  return OPENERS.has(name) || (name === 'open' && callee.object.name === 'PeerDist');
}

/** True where a use of the variable closes the handle or gives it away; reading a member or calling another method does neither. */
function settles({ identifier }) {
  const { parent } = identifier;
  if (parent.type === 'MemberExpression' && parent.object === identifier) {
    return parent.property.type === 'Identifier' && CLOSERS.has(parent.property.name);
  }
  return true;
}

const rule = {
  meta: { type: 'problem', schema: [] },
  create(context) {
    return {
      ExpressionStatement(node) {
        if (opens(node.expression)) context.report({ node, message: 'this handle can never be closed' });
      },
      VariableDeclaration(node) {
        if (node.kind === 'await using') return;
        for (const declarator of node.declarations) {
          if (!opens(declarator.init) || declarator.id.type !== 'Identifier') continue;
          const [variable] = context.sourceCode.getDeclaredVariables(declarator);
          const uses = variable.references.filter(({ identifier }) => identifier !== declarator.id);
          if (!uses.some(settles))
            context.report({ node: declarator, message: 'this handle is never closed: use `await using`' });
        }
      },
    };
  },
};

export default { meta: { name: 'peerdist' }, rules: { 'close-handles': rule } };
