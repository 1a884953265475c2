# Every image of the kit, stated once:  docker buildx bake            (all five)
#                                       docker buildx bake vllm-cuda  (one)
# Variables below come from the environment:  REGISTRY=registry.example/ai VERSION=0.1.0 docker buildx bake --push
# Behind a proxy that opens TLS:  docker buildx bake --set '*.secrets=id=ca,src=/etc/ssl/certs/ca-certificates.crt'
# Wheels from a folder:           docker buildx bake --set 'vllm-*.contexts.wheels=/path/to/wheels'

variable "REGISTRY" {
  default = "berth"
}

variable "VERSION" {
  default = "0.1.0"
}

variable "SOURCE" {
  default = ""
}

variable "REVISION" {
  default = ""
}

# An index of Python packages of your own.
variable "PACKAGE_INDEX" {
  default = ""
}

# A registry to keep build caches in, for machines that come and go: registry.example/ai/cache
variable "CACHE" {
  default = ""
}

group "default" {
  targets = ["vllm", "llm", "router"]
}

target "_common" {
  args = {
    BERTH_VERSION = VERSION
    PACKAGE_INDEX = PACKAGE_INDEX
    SOURCE        = SOURCE
    REVISION      = REVISION
  }
}

target "vllm" {
  name       = "vllm-${device}"
  matrix     = { device = ["cpu", "cuda", "hpu"] }
  inherits   = ["_common"]
  dockerfile = "Dockerfile.${device}"
  tags       = ["${REGISTRY}/vllm-${device}:${VERSION}"]
  cache-from = CACHE == "" ? [] : ["type=registry,ref=${CACHE}:vllm-${device}"]
  cache-to   = CACHE == "" ? [] : ["type=registry,ref=${CACHE}:vllm-${device},mode=max"]
}

target "llm" {
  inherits   = ["_common"]
  dockerfile = "microservice/Dockerfile"
  tags       = ["${REGISTRY}/llm:${VERSION}"]
  cache-from = CACHE == "" ? [] : ["type=registry,ref=${CACHE}:llm"]
  cache-to   = CACHE == "" ? [] : ["type=registry,ref=${CACHE}:llm,mode=max"]
}

# vLLM's own router, for compose/router.yaml.
target "router" {
  inherits   = ["_common"]
  dockerfile = "compose/router.Dockerfile"
  tags       = ["${REGISTRY}/router:${VERSION}"]
  cache-from = CACHE == "" ? [] : ["type=registry,ref=${CACHE}:router"]
  cache-to   = CACHE == "" ? [] : ["type=registry,ref=${CACHE}:router,mode=max"]
}
