//! GatewayClass: whose controller serves its Gateways.

use super::{Kind, Spec};
use crate::config::fields::Fields;

/// Controller names that Penstock answers to: its own, and Envoy Gateway's so that its manifests work unmodified.
const CONTROLLERS: [&str; 2] =
    ["penstock.dev/gateway-controller", "gateway.envoyproxy.io/gatewayclass-controller"];

#[derive(Debug)]
pub(crate) struct GatewayClass {
    pub(crate) controller: Box<str>,
}

impl GatewayClass {
    pub(crate) fn is_ours(&self) -> bool {
        CONTROLLERS.contains(&&*self.controller)
    }
}

impl Spec for GatewayClass {
    fn read(top: &Fields<'_>, _: Kind) -> Option<Self> {
        let spec = top.require("spec")?.fields()?;
        spec.skip(&["description"]);
        spec.no_effect(&["parametersRef"], "it configures Envoy's deployment, which is not there");
        Some(Self { controller: spec.required_string("controllerName").into() })
    }
}
