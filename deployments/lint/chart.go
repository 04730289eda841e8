package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const chartDir = root + "/helm/hookline"

// kubeVersion is what the chart is rendered for.
const kubeVersion = "v1.31.0"

// valueSets are the ways in which the chart is rendered, each on top of its
// defaults, and the kinds of objects that must come of it.
var valueSets = []struct {
	name, values string
	want         []string
}{
	{"defaults", "secrets: {ADMIN_TOKEN: 0123456789abcdef}", []string{"ConfigMap", "Secret", "Deployment", "StatefulSet", "Service", "PodDisruptionBudget", "ServiceAccount"}},
	{"everything by KEDA", everything + "autoscaler: keda\n", []string{"ScaledObject", "ServiceMonitor", "PrometheusRule", "NetworkPolicy"}},
	{"everything by HPA", everything, []string{"HorizontalPodAutoscaler"}},
	{"scraped, secrets given", "secrets: {ADMIN_TOKEN: 0123456789abcdef, ADMIN_READ_TOKEN: 0123456789abcdee, SECRET_KEYS: x}\nserviceMonitor: {enabled: true}", []string{"Secret", "ServiceMonitor"}},
	{"all roles in one", "existingSecret: mine\nroles: {router: {enabled: false, kind: Deployment, roles: router}, sink: {enabled: false, kind: Deployment, roles: sink}, " +
		"console: {enabled: false, kind: Deployment, roles: console}, dispatcher: {kind: StatefulSet, roles: 'router,dispatcher,sink,console'}}", []string{"StatefulSet"}},
}

const everything = `
existingSecret: mine
imagePullSecrets: [{name: pull}]
config: {PARTITIONS: 1000000, TRACE_SAMPLE: 0.5, ADMIN_TLS_CERT_FILE: /certs/tls.crt, ADMIN_TLS_KEY_FILE: /certs/tls.key}
extraEnv: [{name: CERT, value: x}]
extraVolumes: [{name: certs, secret: {secretName: certs}}]
extraVolumeMounts: [{name: certs, mountPath: /certs, readOnly: true}]
priorityClassName: high
nodeSelector: {a: b}
tolerations: [{operator: Exists}]
affinity: {nodeAffinity: {}}
podAnnotations: {a: b}
podLabels: {c: d}
serviceAccount: {annotations: {e: f}}
keda: {authenticationRef: kafka}
networkPolicy: {enabled: true, admin: [{namespaceSelector: {matchLabels: {a: b}}}], kafka: {ports: [9093], to: [{podSelector: {}}]}}
serviceMonitor: {enabled: true, labels: {release: prometheus}, tlsConfig: {ca: {secret: {name: ca, key: ca.crt}}, serverName: hookline}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
roles:
  router: {autoscaling: {enabled: true}}
  dispatcher: {autoscaling: {enabled: true}}
  sink: {autoscaling: {enabled: true}}
`

// refused are values with which the chart must not render.
var refused = map[string]string{
	"no token":                "{}",
	"no token to scrape with": "secrets: {ADMIN_TOKEN: 0123456789abcdef}\nserviceMonitor: {enabled: true}",
	"a secret in the config":  "secrets: {ADMIN_TOKEN: 0123456789abcdef}\nconfig: {CLICKHOUSE_PASSWORD: x}",
	"an unknown value":        "secrets: {ADMIN_TOKEN: 0123456789abcdef}\nreplicas: 3",
	"stopped before requests": "secrets: {ADMIN_TOKEN: 0123456789abcdef}\nterminationGracePeriodSeconds: 5",
}

func checkChart() []error {
	var errs []error
	linted := lint.AllWithKubeVersion(chartDir, map[string]any{"secrets": map[string]any{"ADMIN_TOKEN": "0123456789abcdef"}}, "default", &chartutil.KubeVersion{Version: kubeVersion, Major: "1", Minor: "31"})
	for _, m := range linted.Messages {
		if m.Severity >= support.WarningSev {
			errs = append(errs, fmt.Errorf("helm lint: %s: %w", m.Path, m.Err))
		}
	}
	for _, set := range valueSets {
		rendered, err := render(set.values)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", set.name, err))
			continue
		}
		found := map[string]int{}
		for path, text := range rendered {
			for doc := range strings.SplitSeq(text, "\n---") {
				kind, err := checkObject([]byte(doc))
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %s: %w", set.name, path, err))
				}
				found[kind]++
			}
		}
		for _, kind := range set.want {
			if found[kind] == 0 {
				errs = append(errs, fmt.Errorf("%s: there is no %s", set.name, kind))
			}
		}
		if set.name == "everything by HPA" && !strings.Contains(rendered["hookline/templates/configmap.yaml"], `HOOKLINE_PARTITIONS: "1000000"`) {
			errs = append(errs, fmt.Errorf("%s: a large number is written otherwise", set.name))
		}
	}
	for name, values := range refused {
		if _, err := render(values); err == nil {
			errs = append(errs, fmt.Errorf("it renders with %s", name))
		}
	}
	rules, err := os.ReadFile(root + "/prometheus/hookline.rules.yaml")
	copied, err2 := os.ReadFile(chartDir + "/files/hookline.rules.yaml")
	if err != nil || err2 != nil || !bytes.Equal(rules, copied) {
		errs = append(errs, fmt.Errorf("files/hookline.rules.yaml is not prometheus/hookline.rules.yaml: copy it"))
	}
	return errs
}

// render is "helm template".
func render(values string) (map[string]string, error) {
	var given map[string]any
	if err := yaml.Unmarshal([]byte(values), &given); err != nil {
		return nil, err
	}
	c, err := loader.Load(chartDir)
	if err != nil {
		return nil, err
	}
	caps := chartutil.DefaultCapabilities.Copy()
	caps.KubeVersion = chartutil.KubeVersion{Version: kubeVersion, Major: "1", Minor: "31"}
	all, err := chartutil.ToRenderValues(c, given, chartutil.ReleaseOptions{Name: "r", Namespace: "default", IsInstall: true}, caps)
	if err != nil {
		return nil, err
	}
	out, err := (engine.Engine{}).Render(&chart.Chart{Metadata: c.Metadata, Templates: c.Templates, Files: c.Files, Values: c.Values, Schema: c.Schema}, all)
	if err != nil {
		return nil, err
	}
	for path := range out {
		if !strings.HasSuffix(path, ".yaml") {
			delete(out, path)
		}
	}
	return out, nil
}

// scaledObject is what the chart uses of KEDA's type, by its documentation; its
// module would bring KEDA's whole operator.
type scaledObject struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	Spec       struct {
		ScaleTargetRef struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Name       string `json:"name"`
		} `json:"scaleTargetRef"`
		MinReplicaCount *int32 `json:"minReplicaCount"`
		MaxReplicaCount *int32 `json:"maxReplicaCount"`
		PollingInterval *int32 `json:"pollingInterval"`
		CooldownPeriod  *int32 `json:"cooldownPeriod"`
		Triggers        []struct {
			Type              string            `json:"type"`
			Metadata          map[string]string `json:"metadata"`
			AuthenticationRef *struct {
				Name string `json:"name"`
			} `json:"authenticationRef"`
		} `json:"triggers"`
	} `json:"spec"`
}

// checkObject decodes one object strictly: no unknown and no doubled field, and
// every value of its type.
func checkObject(doc []byte) (kind string, err error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := yaml.Unmarshal(doc, &head); err != nil || head.Kind == "" {
		return "", err // nothing but comments
	}
	switch head.Kind {
	case "ServiceMonitor":
		err = yaml.UnmarshalStrict(doc, new(monitoring.ServiceMonitor))
	case "PrometheusRule":
		err = yaml.UnmarshalStrict(doc, new(monitoring.PrometheusRule))
	case "ScaledObject":
		err = yaml.UnmarshalStrict(doc, new(scaledObject))
	default:
		decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
		_, _, err = decoder.Decode(doc, nil, nil)
	}
	return head.Kind, err
}
