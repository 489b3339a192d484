// A certified OpenID provider for tests. Everything it needs comes in LAB_OIDC (JSON): address, mount path, TLS
// material, signing keys, client, accounts, and the gateway's API as a resource.
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import Provider from 'oidc-provider';

const lab = JSON.parse(process.env.LAB_OIDC);
const extraClaims = ['email', 'email_verified', 'groups', 'name', 'oid', 'preferred_username', 'tid'];

const provider = new Provider(lab.issuer, {
  jwks: lab.jwks,
  cookies: { keys: [lab.cookieKey] },
  clients: [
    {
      client_id: lab.clientId,
      application_type: 'native',
      // Google gives its desktop clients a secret, and refuses them without it.
      ...(lab.clientSecret ? { client_secret: lab.clientSecret } : {}),
      token_endpoint_auth_method: lab.clientSecret ? 'client_secret_post' : 'none',
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
      response_types: ['code'],
      // A native client's loopback URIs are compared without the port (RFC 8252 section 7.3).
      redirect_uris: ['http://127.0.0.1/callback', 'http://localhost/callback', 'http://localhost'],
      id_token_signed_response_alg: lab.algorithm,
    },
  ],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  // Corporate providers let their own apps refresh; this one wants offline_access on record first (see `ask`).
  issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed('refresh_token'),
  conformIdTokenClaims: false,
  scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
  claims: {
    openid: ['sub', 'oid', 'tid'],
    profile: ['name', 'preferred_username'],
    email: ['email', 'email_verified'],
    groups: ['groups'],
  },
  ttl: { AccessToken: lab.tokenSeconds, IdToken: lab.tokenSeconds, RefreshToken: 86400, Grant: 86400, Session: 86400 },
  findAccount: async (_ctx, login) => {
    const claims = lab.accounts[login];
    return claims && { accountId: login, claims: async () => ({ sub: login, ...claims }) };
  },
  extraTokenClaims: async (_ctx, token) => {
    const claims = lab.accounts[token.accountId] ?? {};
    // `azp` and `ver` are how Entra ID names the client and the shape of its tokens.
    const entra = { azp: lab.clientId, ver: '2.0' };
    return Object.fromEntries(extraClaims.filter((name) => name in claims).map((name) => [name, claims[name]]).concat(Object.entries(lab.mount ? entra : {})));
  },
  features: {
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      // Clients that do not know the `resource` parameter (MSAL) get a token for the same API.
      defaultResource: async () => lab.resource,
      useGrantedResource: async () => true,
      getResourceServerInfo: async () => ({
        audience: lab.resource,
        scope: lab.resourceScope,
        accessTokenFormat: 'jwt',
        accessTokenTTL: lab.tokenSeconds,
        jwt: { sign: { alg: lab.algorithm } },
      }),
    },
  },
});

const handle = provider.callback();
const { mount } = lab;

// The provider forgets offline_access unless prompt=consent comes with it, and then refuses MSAL, which names it again
// at every refresh. Entra ID grants it without that, so the prompt is added for whoever does not send one.
function ask(url) {
  const question = new URL(url, lab.issuer);
  const wants = question.searchParams.get('scope')?.split(' ').includes('offline_access');
  if (question.pathname === '/auth' && wants && !question.searchParams.has('prompt')) {
    question.searchParams.set('prompt', 'consent');
  }
  return question.pathname + question.search;
}

function serve(request, response) {
  if (mount) {
    if (!request.url.startsWith(`${mount}/`)) {
      response.writeHead(404).end();
      return;
    }
    // What express does when it mounts an application: the provider then builds its URLs below the path.
    request.originalUrl = request.url;
    request.baseUrl = mount;
    request.url = request.url.slice(mount.length);
  }
  request.url = ask(request.url);
  handle(request, response);
}

const server = lab.tls
  ? https.createServer({ cert: fs.readFileSync(lab.tls.cert), key: fs.readFileSync(lab.tls.key) }, serve)
  : http.createServer(serve);
server.listen(lab.port, '127.0.0.1');
process.on('SIGTERM', () => process.exit(0));
