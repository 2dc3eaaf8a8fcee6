//! The kinds that Penstock reads, by group and version.

/// A kind of manifest. Two groups serve an InferencePool, so it is here twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    GatewayClass,
    Gateway,
    HttpRoute,
    /// `inference.networking.x-k8s.io`
    InferencePoolAlpha,
    /// `inference.networking.k8s.io`
    InferencePool,
    InferenceModel,
    ClientTrafficPolicy,
    BackendTrafficPolicy,
    Backend,
    Pod,
    Service,
    EndpointSlice,
}

pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
pub(crate) const ALPHA_GROUP: &str = "inference.networking.x-k8s.io";
pub(crate) const INFERENCE_GROUP: &str = "inference.networking.k8s.io";
pub(crate) const ENVOY_GROUP: &str = "gateway.envoyproxy.io";

impl Kind {
    pub(crate) fn of(group: &str, kind: &str) -> Option<Self> {
        Some(match (group, kind) {
            (GATEWAY_GROUP, "GatewayClass") => Self::GatewayClass,
            (GATEWAY_GROUP, "Gateway") => Self::Gateway,
            (GATEWAY_GROUP, "HTTPRoute") => Self::HttpRoute,
            (ALPHA_GROUP, "InferencePool") => Self::InferencePoolAlpha,
            (INFERENCE_GROUP, "InferencePool") => Self::InferencePool,
            (ALPHA_GROUP, "InferenceModel") => Self::InferenceModel,
            (ENVOY_GROUP, "ClientTrafficPolicy") => Self::ClientTrafficPolicy,
            (ENVOY_GROUP, "BackendTrafficPolicy") => Self::BackendTrafficPolicy,
            (ENVOY_GROUP, "Backend") => Self::Backend,
            ("", "Pod") => Self::Pod,
            ("", "Service") => Self::Service,
            ("discovery.k8s.io", "EndpointSlice") => Self::EndpointSlice,
            _ => return None,
        })
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
            Self::InferencePoolAlpha | Self::InferencePool => "InferencePool",
            Self::InferenceModel => "InferenceModel",
            Self::ClientTrafficPolicy => "ClientTrafficPolicy",
            Self::BackendTrafficPolicy => "BackendTrafficPolicy",
            Self::Backend => "Backend",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
        }
    }

    /// The values of `apiVersion` that are read.
    pub(crate) fn versions(self) -> &'static [&'static str] {
        match self {
            Self::GatewayClass | Self::Gateway | Self::HttpRoute => {
                &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]
            }
            Self::InferencePoolAlpha | Self::InferenceModel => &["inference.networking.x-k8s.io/v1alpha2"],
            Self::InferencePool => &["inference.networking.k8s.io/v1"],
            Self::ClientTrafficPolicy | Self::BackendTrafficPolicy | Self::Backend => {
                &["gateway.envoyproxy.io/v1alpha1"]
            }
            Self::Pod | Self::Service => &["v1"],
            Self::EndpointSlice => &["discovery.k8s.io/v1"],
        }
    }

    /// Whether unknown fields are reported: not for what kubectl prints whole and a gateway reads in part.
    pub(crate) fn is_strict(self) -> bool {
        !matches!(self, Self::Pod | Self::Service | Self::EndpointSlice)
    }

    pub(crate) fn has_namespace(self) -> bool {
        self != Self::GatewayClass
    }
}
