# volvelle: set
# Sets the password of an account of this host.
param($user, $new)
try {
  ([ADSI]"WinNT://$env:COMPUTERNAME/$user,user").psbase.Invoke('SetPassword', $new)
  'result=0'
} catch { 'result=' + $_.Exception.GetBaseException().HResult.ToString('x8') }
