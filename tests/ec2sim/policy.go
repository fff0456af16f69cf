package ec2sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// policy is an identity-based IAM policy: Allow statements with actions,
// resources and the conditions StringEquals and StringLike on request tags,
// resource tags and ec2:CreateAction. Everything else is refused when it is read,
// so that no test passes by what is not understood.
type policy struct{ statements []statement }

type statement struct {
	Sid       string
	Effect    string
	Action    oneOrMore
	Resource  oneOrMore
	Condition map[string]map[string]oneOrMore
}

// oneOrMore is a string or a list of them.
type oneOrMore []string

// UnmarshalJSON reads "a" and ["a", "b"].
func (o *oneOrMore) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) == nil {
		*o = oneOrMore{s}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(o))
}

func (o oneOrMore) match(s string, fold bool) bool {
	return slices.ContainsFunc(o, func(pattern string) bool {
		if fold {
			return matches(strings.ToLower(pattern), strings.ToLower(s))
		}
		return matches(pattern, s)
	})
}

// parsePolicy reads a policy document; nil, which allows everything, for "".
func parsePolicy(doc string) (*policy, error) {
	if doc == "" {
		return nil, nil
	}
	var in struct {
		Version   string
		Statement []statement
	}
	dec := json.NewDecoder(strings.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, fmt.Errorf("ec2sim: policy: %w", err)
	}
	for _, st := range in.Statement {
		if st.Effect != "Allow" || len(st.Action) == 0 || len(st.Resource) == 0 {
			return nil, fmt.Errorf("ec2sim: policy: statement %s: want Allow, Action and Resource", st.Sid)
		}
		for op, keys := range st.Condition {
			if op != "StringEquals" && op != "StringLike" {
				return nil, fmt.Errorf("ec2sim: policy: statement %s: %s is not simulated", st.Sid, op)
			}
			for key := range keys {
				if key != "ec2:CreateAction" && !strings.HasPrefix(key, "aws:RequestTag/") && !strings.HasPrefix(key, "aws:ResourceTag/") {
					return nil, fmt.Errorf("ec2sim: policy: statement %s: %s is not simulated", st.Sid, key)
				}
			}
		}
	}
	return &policy{in.Statement}, nil
}

// SetPolicy makes the server allow only what the IAM policy document allows to
// the caller; "" allows everything.
func (s *Server) SetPolicy(doc string) error {
	p, err := parsePolicy(doc)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy = p
	return nil
}

// need is one thing that must be allowed for a call.
type need struct {
	action, resource string
	missing          bool // the resource does not exist: only the action counts
	context          map[string]string
}

func (p *policy) allows(n need) bool {
	return slices.ContainsFunc(p.statements, func(st statement) bool {
		switch {
		case !st.Action.match("ec2:"+n.action, true):
			return false
		case n.missing:
			return true
		}
		return st.Resource.match(n.resource, false) && st.holds(n.context)
	})
}

func (st statement) holds(context map[string]string) bool {
	for op, keys := range st.Condition {
		for key, want := range keys {
			have, ok := context[key]
			if !ok || op == "StringEquals" && !slices.Contains(want, have) || op == "StringLike" && !want.match(have, false) {
				return false
			}
		}
	}
	return true
}

// authorize refuses a call that the policy does not allow, before it does
// anything.
func (s *Server) authorize(r *request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.policy == nil {
		return nil
	}
	for _, n := range s.needs(r) {
		if !s.policy.allows(n) {
			return apiErr("UnauthorizedOperation", "You are not authorized to perform this operation. User: arn:aws:sts::%s:assumed-role/ebb-worker/session "+
				"is not authorized to perform: ec2:%s on resource: %s because no identity-based policy allows the ec2:%s action. "+
				"Encoded authorization failure message: bm90IGVuY29kZWQgaGVyZQ==", s.opt.AccountID, n.action, n.resource, n.action)
		}
	}
	return nil
}

// needs is what a call must be allowed to do, after the table of actions,
// resources and condition keys for EC2 in the service authorization reference.
func (s *Server) needs(r *request) []need {
	made, _ := r.requestTags() // what is wrong with them the action tells
	var out []need
	add := func(id string) { out = append(out, s.needFor(r.action, id, nil)) }
	create := func(kind string) {
		n := s.needFor(r.action, kind+"-*", made)
		n.missing = false
		out = append(out, n)
		if len(made) > 0 {
			n = s.needFor("CreateTags", kind+"-*", made)
			n.missing = false
			n.context["ec2:CreateAction"] = r.action
			out = append(out, n)
		}
	}
	switch r.action {
	case "CreateVolume":
		create("vol")
		if id := r.str("SnapshotId"); id != "" {
			add(id)
		}
	case "DeleteVolume", "ModifyVolume":
		add(r.str("VolumeId"))
	case "AttachVolume", "DetachVolume":
		add(r.str("VolumeId"))
		inst := r.str("InstanceId")
		if v := s.st.Volumes[r.str("VolumeId")]; inst == "" && v != nil && v.Attachment != nil {
			inst = v.Attachment.InstanceID
		}
		if inst != "" {
			add(inst)
		}
	case "CreateSnapshot":
		add(r.str("VolumeId"))
		create("snap")
	case "CreateSnapshots":
		inst := r.str("InstanceSpecification.InstanceId")
		add(inst)
		excluded := r.list("InstanceSpecification.ExcludeDataVolumeId")
		for _, id := range sortedKeys(s.st.Volumes) {
			if a := s.st.Volumes[id].Attachment; a != nil && a.InstanceID == inst && !slices.Contains(excluded, id) {
				add(id)
			}
		}
		create("snap")
	case "DeleteSnapshot":
		add(r.str("SnapshotId"))
	case "CreateTags", "DeleteTags":
		tags := map[string]string{}
		for _, t := range r.tags("Tag") {
			tags[t.Key] = t.Value
		}
		for _, id := range r.list("ResourceId") {
			out = append(out, s.needFor(r.action, id, tags))
		}
	case "TerminateInstances", "ModifyInstanceAttribute":
		for _, id := range append(r.list("InstanceId"), r.str("InstanceId")) {
			if id != "" {
				add(id)
			}
		}
	default: // describes know no resources
		out = append(out, need{action: r.action, resource: "*"})
	}
	return out
}

// needFor is an action on one resource, with the tags that the request sets.
func (s *Server) needFor(action, id string, request map[string]string) need {
	n := need{action: action, context: map[string]string{}}
	for k, v := range request {
		n.context["aws:RequestTag/"+k] = v
	}
	res, err := s.taggedResource(id)
	n.missing = err != nil
	for k, v := range res.tags {
		n.context["aws:ResourceTag/"+k] = v
	}
	kind, name, _ := strings.Cut(id, "-")
	account := s.opt.AccountID
	switch kind {
	case "vol":
		kind = "volume"
	case "snap":
		kind, account = "snapshot", ""
	default:
		kind = "instance"
	}
	if name != "*" {
		name = id
	}
	n.resource = fmt.Sprintf("arn:aws:ec2:%s:%s:%s/%s", s.opt.Region, account, kind, name)
	return n
}

// requestTags are those of all tag specifications.
func (r *request) requestTags() (map[string]string, error) {
	var all []tag
	for _, n := range r.indices("TagSpecification") {
		all = append(all, r.tags(fmt.Sprintf("TagSpecification.%d.Tag", n))...)
	}
	return addTags(nil, all, len(all))
}
