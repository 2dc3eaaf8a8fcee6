//! nginx with Debian's Lua module: the body is read whole into memory, and one compiled expression finds the model. That
//! is less than a JSON parser does, and how it is done where speed counts: the best that this peer can be.

use anyhow::Result;
use std::path::Path;
use std::process::Command;

use super::super::ask::Pool;
use super::{Packages, Peer, Site, nginx};

const MODULES: [&str; 2] =
    ["/usr/share/nginx/modules/ndk_http_module.so", "/usr/share/nginx/modules/ngx_http_lua_module.so"];

pub(super) fn peer() -> Peer {
    Peer {
        name: "nginx-lua".to_owned(),
        about: "routes by the model in the body: ngx.req.read_body, one PCRE expression",
        packages: Packages::Debian(&["nginx-light", "libnginx-mod-http-lua"]),
        splices: false,
        version: Box::new(version),
        command: Box::new(command),
    }
}

fn version() -> Option<String> {
    MODULES.iter().all(|module| Path::new(module).is_file()).then(nginx::version)?
}

fn command(site: &Site) -> Result<Option<Command>> {
    let main = MODULES.map(|module| format!("load_module {module};\n")).concat();
    let http = format!("client_body_buffer_size {};", site.largest_body + 1);
    let [a, b] = Pool::BOTH;
    let location = format!(
        "set $pool '';
            access_by_lua_block {{
                ngx.req.read_body()
                local body = ngx.req.get_body_data()
                local found = body and ngx.re.match(body, [[\"model\"\\s*:\\s*\"([^\"]*)\"]], 'jo')
                if not found then return ngx.exit(400) end
                if found[1] == '{}' then ngx.var.pool = 'pool_a'
                elseif found[1] == '{}' then ngx.var.pool = 'pool_b'
                else return ngx.exit(404) end
            }}",
        a.model(),
        b.model()
    );
    nginx::start(site, &main, &http, &location)
}
