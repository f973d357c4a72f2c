{{/* What the operator may do, in all namespaces or in each that it serves; docs/rbac.md gives the reason of each line, and
     a test holds the two equal. */}}
{{- define "largeforge.operatorRules" -}}
- apiGroups: [largeforge.ai]
  resources: [finetunejobs, quantizejobs, inferenceservices, experts]
  verbs: [get, list, watch]
- apiGroups: [largeforge.ai]
  resources: [finetunejobs/status, quantizejobs/status, inferenceservices/status, experts/status]
  verbs: [patch]
- apiGroups: [largeforge.ai]
  resources: [experts]
  verbs: [create, patch]
- apiGroups: [largeforge.ai]
  resources: [finetunejobs/finalizers, quantizejobs/finalizers, inferenceservices/finalizers, experts/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* Who may view a namespace may view our kinds in it. */}}
{{- define "largeforge.viewRules" -}}
- apiGroups: [largeforge.ai]
  resources: [finetunejobs, quantizejobs, inferenceservices, experts]
  verbs: [get, list, watch]
{{- end -}}

{{/* Who may edit a namespace may edit our kinds in it, too. */}}
{{- define "largeforge.editRules" -}}
- apiGroups: [largeforge.ai]
  resources: [finetunejobs, quantizejobs, inferenceservices, experts]
  verbs: [create, update, patch, delete, deletecollection]
- apiGroups: [largeforge.ai]
  resources: [inferenceservices/scale]  # kubectl scale
  verbs: [get, update, patch]
{{- end -}}
