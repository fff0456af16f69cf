package policy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// object is a part of a JSON Schema.
type object = map[string]any

// Schema is the document's JSON Schema (2020-12), made from the table that Load
// reads by, for editors. It knows no contradictions between fields: Load does.
func Schema() []byte {
	settings := object{}
	for i := range fields {
		f := &fields[i]
		group, sub, nested := strings.Cut(f.path, ".")
		if !nested {
			settings[group] = f.schema()
			continue
		}
		g, ok := settings[group].(object)
		if !ok {
			g = closed(object{}, "")
			settings[group] = g
		}
		if props, ok := g["properties"].(object); ok {
			props[sub] = f.schema()
		}
	}
	with := func(more object) object {
		out := object{}
		for k, v := range settings {
			out[k] = v
		}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	rule := closed(with(object{"name": object{"type": "string", "pattern": nameRe.String()}, "match": matchSchema()}),
		"A rule holds for the disks it matches that no rule before it matched.")
	rule["required"] = []string{"name"}
	disk := closed(with(object{"disk": object{"type": "string", "description": "A disk's id or name."}}), "Settings of one disk, on top of its rule's.")
	disk["required"] = []string{"disk"}
	budgets := object{}
	for _, b := range budgetFields {
		s := object{"type": "integer", "minimum": 1, "description": b.about}
		if b.gib {
			s = object{"type": "string", "pattern": sizeRe.String(), "description": b.about}
		}
		budgets[b.name] = s
	}
	root := closed(object{
		"apiVersion": object{"const": APIVersion},
		"kind":       object{"const": Kind},
		"metadata":   closed(object{"name": object{"type": "string"}}, ""),
		"defaults":   closed(settings, "What holds unless a rule or an override says otherwise."),
		"rules":      list(rule, "The first rule that matches a disk holds for it."),
		"disks":      list(disk, "Overrides for single disks."),
		"budgets":    closed(budgets, "What may be under way at once."),
	}, "")
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Ebb policy"
	root["required"] = []string{"apiVersion", "kind"}
	data, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // maps, texts and numbers
	}
	return append(data, '\n')
}

func closed(properties object, about string) object {
	o := object{"type": "object", "additionalProperties": false, "properties": properties}
	if about != "" {
		o["description"] = about
	}
	return o
}

func list(items object, about string) object {
	return object{"type": "array", "minItems": 1, "items": items, "description": about}
}

func matchSchema() object {
	text := object{"type": "string", "minLength": 1}
	texts := object{"oneOf": []object{text, list(text, "One of these must fit.")}}
	values := object{"type": "object", "additionalProperties": text}
	return closed(object{
		"clusters": texts, "namespaces": texts, "claims": texts, "storageClasses": texts, "nodeGroups": texts,
		"labels": values, "tags": values,
	}, "All that is given must hold. * stands for any text without a slash, ? for one letter.")
}

// schema of one setting.
func (f *field) schema() object {
	o := object{"description": f.about}
	text := func(pattern, example string) object {
		o["type"], o["pattern"], o["examples"] = "string", pattern, []string{example}
		return o
	}
	switch f.kind {
	case choiceKind:
		o["enum"] = f.choices
	case bytesKind, gibKind:
		return text(sizeRe.String(), "64GiB")
	case rateKind:
		return text(`^[0-9]+(Ki|Mi|Gi|Ti)B?/s$`, "200MiB/s")
	case percentKind:
		return text(percentRe.String(), f.unit(max(f.least, 0.1)))
	case durationKind:
		return text(`^([0-9]+(w|d|h|m|s))+$`, "24h")
	case countKind:
		o["type"], o["minimum"], o["maximum"] = "integer", int64(f.least), int64(f.most)
	case boolKind:
		o["type"] = "boolean"
	case typesKind:
		o["type"], o["minItems"], o["uniqueItems"] = "array", 1, true
		o["items"] = object{"enum": f.choices}
	case windowsKind:
		return object{"type": "array", "minItems": 1, "items": windowSchema(), "description": f.about}
	}
	return o
}

func windowSchema() object {
	days := strings.Join(dayNames, "|")
	one := object{"type": "string", "pattern": fmt.Sprintf("^(%s)(-(%s))?$", days, days)}
	w := closed(object{
		"days": object{"oneOf": []object{one, list(one, "Days, or ranges such as Mon-Fri.")}, "description": "When the window opens. Left out: every day."},
		"from": object{"type": "string", "pattern": clockRe.String()},
		"to":   object{"type": "string", "pattern": clockRe.String(), "description": "At or before from: on the next day."},
		"zone": object{"type": "string", "description": "Time zone, such as Europe/Berlin. Left out: UTC."},
	}, "")
	w["required"] = []string{"from", "to"}
	return w
}
