{{/* The release's objects begin with this; short enough for every suffix to fit 63 characters. */}}
{{- define "largeforge.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* What a Deployment or Service selects by; never changes. Takes (dict "root" $ "component" "operator"). */}}
{{- define "largeforge.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. Takes (dict "root" $ "component" "operator"). */}}
{{- define "largeforge.labels" -}}
{{ include "largeforge.selectorLabels" . }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image of ours. Takes (dict "root" $ "image" .Values.operator.image). */}}
{{- define "largeforge.image" -}}
{{- with .root.Values.imageRegistry }}{{ . }}/{{ end -}}
{{- include "largeforge.upstreamImage" . -}}
{{- end -}}

{{/* An image as its repository is written. Takes the same. */}}
{{- define "largeforge.upstreamImage" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{/* The namespaces that get a router, as a JSON list; empty where routers are off. */}}
{{- define "largeforge.routerNamespaces" -}}
{{- if .Values.router.enabled -}}
{{- .Values.router.namespaces | default (list .Release.Namespace) | toJson -}}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* The namespaces that the operator serves, as a JSON list; empty for all. */}}
{{- define "largeforge.operatorNamespaces" -}}
{{- if .Values.operator.namespaced -}}
{{- .Values.operator.namespaces | default (list .Release.Namespace) | toJson -}}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* The Secret with the clients' keys. */}}
{{- define "largeforge.clientsSecret" -}}
{{- .Values.router.clientsSecret | default "largeforge-clients" -}}
{{- end -}}

{{/* Whether the hook makes the clients' Secret: true, or nothing. */}}
{{- define "largeforge.makesClients" -}}
{{- if and .Values.router.enabled (not .Values.router.clientsSecret) (not .Values.router.allowUnauthenticated) -}}
true
{{- end -}}
{{- end -}}

{{/* The namespaces in which the hook makes Secrets, as a JSON list; empty where there is nothing to make. */}}
{{- define "largeforge.keyNamespaces" -}}
{{- $namespaces := include "largeforge.routerNamespaces" . | fromJsonArray -}}
{{- if .Values.operator.enabled -}}
{{- append $namespaces .Release.Namespace | uniq | sortAlpha | toJson -}}
{{- else if include "largeforge.makesClients" . -}}
{{- $namespaces | sortAlpha | toJson -}}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* Pod Security restricted, the pod's half. */}}
{{- define "largeforge.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 2000
runAsGroup: 2000
fsGroup: 2000
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Pod Security restricted, the container's half. */}}
{{- define "largeforge.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Readiness and liveness on the port named health. */}}
{{- define "largeforge.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 2
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  failureThreshold: 2
  timeoutSeconds: 5
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  failureThreshold: 6
  timeoutSeconds: 5
{{- end -}}

{{/* The router's port for clients, by name: probes and metrics have another one, which is plain always. */}}
{{- define "largeforge.routerScheme" -}}
{{ if .Values.router.tls.secretName }}https{{ else }}http{{ end }}
{{- end -}}

{{- define "largeforge.routerPort" -}}
{{ .Values.router.service.port | default (ternary 443 80 (ne .Values.router.tls.secretName "")) }}
{{- end -}}

{{/* The beginning of a CRD's metadata. */}}
{{- define "largeforge.crdMetadata" }}
metadata:
{{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
{{- end }}
  labels:
    {{- include "largeforge.labels" (dict "root" . "component" "crds") | nindent 4 }}
{{ end -}}


{{/* Where a pod may run and how much it counts. Takes .Values.operator or .Values.router. */}}
{{- define "largeforge.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
