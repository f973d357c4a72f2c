-- Health of an InferenceService or Expert. Argo CD gives a script neither the string nor the math library.
local wanted_so = {Stopped = true, ScaledToZero = true, Archived = true}
local seen = obj.status or {}
local is = {}
for _, each in ipairs(seen.conditions or {}) do
  is[each.type] = each
end
local function holds(kind)
  return is[kind] ~= nil and is[kind].status == "True"
end

-- An operator that cannot read the object sets this condition and nothing else.
if holds("Stalled") and is.Stalled.observedGeneration == obj.metadata.generation then
  return {status = "Degraded", message = is.Stalled.message}
end
if not is.Ready or seen.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen the newest spec yet"}
end
if is.Ready.status ~= "True" and wanted_so[is.Ready.reason] then
  return {status = "Suspended", message = is.Ready.message}
end
if holds("Reconciling") then
  return {status = "Progressing", message = is.Reconciling.message}
end
if is.Ready.status ~= "True" then
  return {status = is.Ready.reason == "Pending" and "Progressing" or "Degraded", message = is.Ready.message}
end
-- What is served is not what the spec asks for: an older version of an Expert goes on.
for _, kind in ipairs({"ArtifactResolved", "Compatible", "Loaded", "Probed"}) do
  if is[kind] and is[kind].status == "False" then
    return {status = "Degraded", message = is[kind].message}
  end
end
return {status = "Healthy", message = is.Ready.message}
