//! The table of fixed operations and the parameters shared by all kinds. The first command of an operation is the
//! one that help and documents show; its name and aliases are commands too.

/// Parameters of every rotated secret.
pub const ROTATED_COMMON: &str = "name:str*,rotated-username:str,rotated-password:str!,authentication-credentials:str,same-password:bool,skip-dry-run:bool,description:str,item-custom-fields:map,auto-rotate:bool,rotation-interval:int,rotation-hour:int,rotation-cron:str,rotation-time-zone:str,rotation-event-in:list,rotate-on-unlock:bool,rotate-after-disconnect:bool,password-length:int,use-lower-letters:bool,use-capital-letters:bool,use-numbers:bool,use-special-characters:bool,lock-on-read:bool,lock-ttl:int,max-versions:int,delete_protection:bool,lock-during-sra-session:bool,host-provider:str,key:str,target:list,ara-enabled:bool,enable-agentic-runtime-authority:bool,enable-ai-quorum:bool,input-rule:list,output-rule:list,secure-access-enable:bool,secure-access-host:list,secure-access-allow-external-user:bool,secure-access-bastion-issuer:str,secure-access-certificate-issuer:str,secure-access-enforce-hosts-restriction:bool,secure-access-rdp-domain:str,secure-access-rdp-user:str,secure-access-ssh-creds:str,secure-access-ssh-user:str,secure-access-target-type:str,secure-access-url:str,secure-access-web:bool,secure-access-web-browsing:bool,secure-access-web-proxy:bool";
/// What only a creation takes.
pub const ROTATED_CREATE: &str = "target-name:str*,rotator-type:str*,tags:list,test-only:bool";
/// What only an update takes.
pub const ROTATED_UPDATE: &str = "rotator-type:str,add-tag:list,rm-tag:list,new-name:str,keep-prev-version:bool";
/// Parameters of every target.
pub const TARGET_COMMON: &str = "name:str*,description:str,comment:str,delete_protection:bool,key:str,lock-on-read:bool,lock-ttl:int,max-versions:int,rotate-on-unlock:bool";
/// What only the creation of a target takes.
pub const TARGET_CREATE: &str = "fingerprint:list,test-only:bool";
/// What only an update of a target takes.
pub const TARGET_UPDATE: &str =
    "new-name:str,new-comment:str,keep-prev-version:bool,update-version:bool,add-hosts:str,rm-hosts:str";
/// Parameters of a linked target.
pub const LINKED_TARGET: &str = "hosts:str,parent-target-name:str,type:str";

/// `names | commands | status | summary | answer | parameters`.
pub const FIXED: &[&str] = &[
    "auth | auth | 200 | Signs in and gives a token | {token, expiration, creds} | access-id:str,access-key:str!,access-type:str=access_key,jwt:str!",
    "validate-token | validate-token | 200 | Says whether a token is valid | {is_valid, expiration, ttl, reason} |",
    "validate-producer-credentials | validate-producer-credentials | 200 | Tells a web hook whether its caller is a gateway of the account | {access_id, item_name} | creds:str!*,expected_access_id:str*,expected_item_name:str",
    "revoke-token | revoke-token | 200 | Ends a token at once | {} |",
    "revoke-all-tokens | revoke-all-tokens | 200 | Ends every token of yours at once, sessions of the console too | {revoked} |",
    "auth-method-create-api-key create-auth-method | auth-method create api-key | 201 | Makes an API key | {name, access_id, access_key} | name:str*,description:str,access-expires:int,allowed-client-type:list,audit-logs-claims:list,bound-ips:list,delete_protection:bool,expiration-event-in:list,force-sub-claims:bool,gw-bound-ips:list,jwt-ttl:int,product-type:list",
    "auth-method-update-api-key update-auth-method | auth-method update api-key | 201 | Changes an API key's settings | {name} | name:str*,new-name:str,description:str,access-expires:int,allowed-client-type:list,audit-logs-claims:list,bound-ips:list,delete_protection:bool,expiration-event-in:list,force-sub-claims:bool,gw-bound-ips:list,jwt-ttl:int,product-type:list",
    "auth-method-get get-auth-method | auth-method get | 200 | Shows an auth method | AuthMethod | name:str*",
    "auth-method-list list-auth-methods | auth-method list | 200 | Lists auth methods | {auth_methods, next_page} | filter:str,pagination-token:str,type:list",
    "auth-method-delete delete-auth-method | auth-method delete | 200 | Deletes an auth method | {name} | name:str*",
    "reset-access-key | auth-method reset-access-key | 200 | Replaces the access key of an auth method | {access_key} | name:str*",
    "create-role | role create | 200 | Makes a role | {} | name:str*,description:str,comment:str,delete_protection:bool,analytics-access:str,audit-access:str,event-center-access:str,event-forwarders-access:str,gw-analytics-access:str,sra-reports-access:str,usage-reports-access:str",
    "update-role | role update | 200 | Changes a role | {updated} | name:str*,new-name:str,description:str=default_comment,new-comment:str=default_comment,delete_protection:bool,analytics-access:str,audit-access:str,event-center-access:str,event-forwarder-access:str,gw-analytics-access:str,sra-reports-access:str,usage-reports-access:str",
    "get-role | role get | 200 | Shows a role | Role | name:str*",
    "list-roles | role list | 200 | Lists roles | {roles, next_page} | filter:str,pagination-token:str",
    "delete-role | role delete | 200 | Deletes a role | {} | name:str*",
    "set-role-rule | role set-rule | 200 | Sets what a role may do on a path | {} | role-name:str*,path:str*,capability:list*,rule-type:str=item-rule,ttl:int",
    "delete-role-rule | role delete-rule | 200 | Removes a rule from a role | {deleted, result} | role-name:str*,path:str*,rule-type:str=item-rule",
    "assoc-role-am | role assoc | 200 | Gives a role to an auth method | {assoc_id} | role-name:str*,am-name:str*,sub-claims:map,case-sensitive:bool",
    "update-assoc | role update-assoc | 200 | Changes an association | {} | assoc-id:str*,sub-claims:map,case-sensitive:bool",
    "delete-assoc | role delete-assoc | 200 | Takes a role from an auth method | {} | assoc-id:str*",
    "describe-permissions | describe-permissions | 200 | Says what you may do on a path | {client_permissions} | path:str*,type:str*",
    "explain-access | explain-access | 200 | Says who may do what on a path, and through which roles | {path, identities, complete} | path:str*,type:str=item-rule,am-name:str",
    "target-get get-target | target get | 200 | Shows a target without its secrets | Target | name:str*,show-versions:bool",
    "target-get-details get-target-details | target get-details | 200 | Shows a target with its secrets | {target, value} | name:str*,show-versions:bool,target-version:int",
    "target-list list-targets | target list | 200 | Lists targets | {targets, next_page} | filter:str,pagination-token:str,type:list",
    "target-delete delete-target | target delete | 200 | Deletes a target | {} | name:str*,force-deletion:bool,target-version:int",
    "target-trust-host-key | target trust-host-key | 200 | Accepts the host key a target now shows | {pins} | name:str*,host:str,fingerprint:str",
    "rotated-secret-list | rotated-secret list | 200 | Lists rotated secrets | {producers, producers_errors} |",
    "gateway-list-rotated-secrets | | 200 | Lists rotated secrets as items | {items, has_next, next_page} | filter:str,pagination-token:str",
    "rotated-secret-get-value | rotated-secret get-value | 200 | Reads the current value | {value} | name:str*,host:str,version:int,ignore-cache:bool",
    "get-rotated-secret-value | | 200 | Reads the current value | {value} | names:str*,host:str,version:int,ignore-cache:bool",
    "gateway-rotate-secret rotate-secret | rotated-secret rotate | 200 | Rotates now and waits for the outcome | {name} | name:str*,rotate-all-services:bool,RotateAllServicesBoolean:bool",
    "rotated-secret-delete | rotated-secret delete | 200 | Deletes a rotated secret | {item_id, item_name, version_deleted, deletion_date} | name:str*,version:int=-1,force-delete:bool",
    "rotated-secret-verify | rotated-secret verify | 200 | Says whether the stored value still opens the account | {hosts} | name:str*",
    "rotated-secret-repair | rotated-secret repair | 200 | Brings store and target together again | {hosts} | name:str*,rotated-password:str!,key-data-base64:str!",
    "rotation-list | rotated-secret history | 200 | Lists the rotations of a secret | {rotations, next_page} | name:str*,pagination-token:str,limit:int",
    "describe-item | item describe | 200 | Shows an item | Item | name:str*,item-id:int,display-id:str,show-versions:bool,gateway-details:bool,services-details:bool,bastion-details:bool,accessibility:str=regular",
    "list-items | item list | 200 | Lists items | {items, folders, has_next, next_page} | path:str,filter:str,tag:str,type:list,sub-types:list,current-folder:bool,minimal-view:bool,modified-after:int,auto-pagination:str=enabled,pagination-token:str,accessibility:str=regular",
    "item-search | item search | 200 | Finds items by state, kind, target or tag, in any order | {items, total, states, next_page} | filter:str,path:str,state:list,kind:list,target-name:str,tag:str,type:list,sort:str=name,descending:bool,pagination-token:str,limit:int",
    "folder-list | item folders | 200 | Lists the folders right below a folder | {folders, next_page} | path:str,pagination-token:str",
    "update-item | item update | 200 | Changes an item | {updated} | name:str*,new-name:str,description:str=default_metadata,new-metadata:str=default_metadata,add-tag:list,rm-tag:list,delete_protection:bool,max-versions:int,lock-on-read:bool,lock-ttl:int,rotate-on-unlock:bool,item-custom-fields:map,protection_key:str,accessibility:str=regular",
    "delete-item | item delete | 200 | Deletes an item | {item_id, item_name, version_deleted, deletion_date} | name:str*,version:int=-1,delete-immediately:bool,delete-in-days:int=7,accessibility:str=regular",
    "delete-items | item delete-many | 200 | Deletes many items | {path, deleted_items, failed_deleted_items} | path:str,item:list",
    "get-tags | item tags | 200 | Lists the tags of an item | [string] | name:str*",
    "set-item-state | item set-state | 200 | Enables or disables an item | {} | name:str*,desired-state:str*,version:int",
    "lock-item | item lock | 200 | Checks an item out | {} | name:str*,actions:str,lock-ttl:int",
    "unlock-item | item unlock | 200 | Checks an item in | {} | name:str*",
    "create-dfc-key | key create | 200 | Makes a protection key, with a customer's fragment or without | {fragment_results} | name:str*,alg:str*,customer-frg-id:str,description:str,metadata:str,tag:list,delete_protection:bool,split-level:int=3,item-custom-fields:map,auto-rotate:bool",
    "gateway-list-customer-fragments | key list-customer-fragments | 200 | Lists the customer's fragments that this gateway has or should have, without their values | {customer_fragments} |",
    "create-secret | secret create | 200 | Makes a static secret | {name} | name:str*,value:str*!,description:str,metadata:str,type:str,format:str,tags:list,delete_protection:bool,max-versions:int,protection_key:str,accessibility:str=regular,multiline_value:bool",
    "get-secret-value | secret get-value | 200 | Reads static secrets | {name: value} | names:list*,version:int,ignore-cache:bool,accessibility:str=regular,pretty-print:bool",
    "update-secret-val | secret update | 200 | Writes a new version of a static secret | {name} | name:str*,value:str*!,format:str,keep-prev-version:bool,last-version:int,new-version:bool,key:str,accessibility:str=regular,multiline:bool",
    "rollback-secret | secret rollback | 200 | Makes an older version current again | {name, version} | name:str*,old-version:int*,accessibility:str=regular",
    "get-account-settings | account settings | 200 | Shows the account's settings | settings |",
    "update-account-settings | account update-settings | 200 | Changes the account's settings | {updated} | company-name:str,jwt-ttl-default:int,jwt-ttl-min:int,jwt-ttl-max:int,default-versioning:bool,max-versions:int,force-new-versions:bool,item-type:str,max-rotation-interval:int,max-rotation-interval-enable:bool,item-locking-enabled:bool,default-key-name:str,password-length:int,use-lower-letters:bool,use-capital-letters:bool,use-numbers:bool,use-special-characters:bool",
    "account-overview | account overview | 200 | Shows how all secrets are doing: counts, failures, rotations of a month back and a month ahead | {states, oldest, trouble, rotating, past, coming} | days:int=30",
    "holder-list | account holders | 200 | Lists the fragment holders and whether they answer | {holders} |",
    "account-create | account create | 201 | Makes another account with a key of its own | {account_id, access_id, access_key} | name:str*",
    "fragments-status | fragments status | 200 | Shows the fragment holders | {threshold, epoch, refreshed_at, holders, keys, rekeys, tombstones_pending} |",
    "fragments-refresh | fragments refresh | 200 | Replaces every fragment; records and keys stay | {keys, epoch, failed} |",
    "fragments-repair | fragments repair | 200 | Restores the fragments of a holder | {holder, restored, sound, failed} | holder:int*",
    "fragments-add-holder | fragments add-holder | 200 | Gives a holder that is new in the roster its fragments | {holder, restored, epoch, failed} | holder:int*",
    "fragments-drop-holder | fragments drop-holder | 200 | Makes worthless what a holder taken out of the roster kept | {holder, keys, epoch, failed} | holder:int*",
    "fragments-rekey | fragments rekey | 200 | Makes new keys and wraps every record under them in the background; retires the old ones | {begun, rekeys, failed} | rate:int,suite:str,status:bool,retire:bool",
    "fragments-doctor | fragments doctor | 200 | Says what is wrong with the holders | {findings} |",
    "audit-list | audit list | 200 | Lists the audit trail | {entries, next_page} | actor:str,action:str,object:str,after:str,pagination-token:str,limit:int",
    "audit-verify | audit verify | 200 | Checks the hash chain of the audit trail | {entries, broken_at} |",
];
