---has(text, ...): the text has all of these parts, as they stand.

local luassert = require "luassert"

return function(text, ...)
  text = tostring(text)
  for _, part in ipairs { ... } do
    luassert.truthy(text:find(part, 1, true), ("%q is not in:\n%s"):format(part, text))
  end
end
