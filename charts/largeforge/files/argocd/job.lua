-- Health of a FineTuneJob or QuantizeJob. Argo CD gives a script neither the string nor the math library.
local seen = obj.status or {}
local is = {}
for _, each in ipairs(seen.conditions or {}) do
  is[each.type] = each.status == "True" and each or nil
end

-- An operator that cannot read the object sets this condition and nothing else.
if is.Stalled and is.Stalled.observedGeneration == obj.metadata.generation then
  return {status = "Degraded", message = is.Stalled.message}
end
if seen.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen the newest spec yet"}
end
if is.Failed then
  return {status = "Degraded", message = is.Failed.message}
end
if is.Suspended then
  return {status = "Suspended", message = is.Suspended.message}
end
if is.Complete then
  return {status = "Healthy", message = is.Complete.message}
end

local progress = seen.progress or {}
if not is.Running or not progress.step or not progress.totalSteps then
  return {status = "Progressing", message = seen.message or ""}
end
local said = "step " .. progress.step .. "/" .. progress.totalSteps
if progress.loss then
  said = said .. ", loss " .. progress.loss
end
if progress.eta then
  said = said .. ", ETA " .. progress.eta
end
if obj.kind == "QuantizeJob" then
  said = seen.message .. ": " .. said
end
return {status = "Progressing", message = said}
