/* bind_zap.h - policies of Lua for who else uses them. */
#ifndef GR_BIND_ZAP_H
#define GR_BIND_ZAP_H

#include "bind/bind.h"
#include "engine/policy.h"

/* [-0, +0] The policy at index, held once more: end with gr_policy_release(). NULL for nil; raises
 * for anything else. */
gr_policy *gr_bind_hold_policy(lua_State *L, int index);

#endif
